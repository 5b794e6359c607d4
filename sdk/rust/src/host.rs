//! The host behind the imports: the real one in a component, the stand-in of
//! [`crate::testing`] elsewhere.

#[cfg(target_arch = "wasm32")]
pub(crate) use crate::abi::{http::send, imports::*};
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use crate::testing::host::*;
