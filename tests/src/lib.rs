//! What the demo, the integration tests and the benchmarks share: real agents as processes, an MQTT
//! broker, producers that keep count, and a ledger that finds what is missing.
//!
//! Nothing here is part of the product, and the product knows nothing of it.

pub mod agent;
pub mod avro;
pub mod broker;
pub mod collector;
pub mod delay;
pub mod event;
pub mod feed;
pub mod feeder;
pub mod flume;
pub mod http;
pub mod island;
pub mod ledger;
pub mod load;
mod loopback;
pub mod mqtt;
pub mod numbers;
pub mod opensearch;
pub mod outputs;
pub mod path;
pub mod peers;
pub mod pki;
pub mod place;
pub mod poster;
pub mod process;
pub mod receiver;
pub mod record;
pub mod service;
pub mod sim;
pub mod tiers;
pub mod trouble;
pub mod wait;
pub mod wiretap;
