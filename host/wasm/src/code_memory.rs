//! Machine code that was never writable where it runs.
//!
//! wasmtime reads code into memory that it writes to, and makes that memory executable. A process
//! that may do that may be made to do it by an attacker; so systemd's `MemoryDenyWriteExecute=` and
//! the kernel's own switch (`PR_SET_MDWE`, Linux 6.3) forbid it. Here the code goes into a file in
//! memory instead, sealed against changes, which is mapped over the place where it was read to.

use std::{fs::File, io::Write, slice};

use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
    mm::{MapFlags, MprotectFlags, ProtFlags, mmap, mprotect},
};
use wasmtime::CustomCodeMemory;

/// How code is made executable.
#[derive(Debug)]
pub(crate) struct SealedCode;

impl CustomCodeMemory for SealedCode {
    fn required_alignment(&self) -> usize {
        rustix::param::page_size()
    }

    fn publish_executable(&self, ptr: *const u8, len: usize) -> wasmtime::Result<()> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut file = File::from(memfd_create("levada-handler", flags)?);
        #[expect(unsafe_code, reason = "code is memory")]
        // SAFETY: wasmtime owns these bytes, has made them read-only and changes them no more.
        let code = unsafe { slice::from_raw_parts(ptr, len) };
        file.write_all(code)?;
        fcntl_add_seals(
            &file,
            SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW,
        )?;
        #[expect(unsafe_code, reason = "code is memory")]
        // SAFETY: a mapping with the same bytes takes the place of whole pages that are wasmtime's
        // alone; nobody holds a reference to them that writes, and they are unmapped with the rest.
        unsafe {
            let (read, place) = (
                ProtFlags::READ | ProtFlags::EXEC,
                MapFlags::PRIVATE | MapFlags::FIXED,
            );
            mmap(ptr.cast_mut().cast(), len, read, place, &file, 0)?;
        }
        Ok(())
    }

    fn unpublish_executable(&self, ptr: *const u8, len: usize) -> wasmtime::Result<()> {
        let flags = MprotectFlags::READ | MprotectFlags::WRITE;
        #[expect(unsafe_code, reason = "code is memory")]
        // SAFETY: wasmtime says that no code runs from these pages any more. Writes to a private
        // mapping stay in this process.
        unsafe {
            mprotect(ptr.cast_mut().cast(), len, flags)?;
        }
        Ok(())
    }
}

/// Forbids this process, and those it starts, for ever to execute memory that was writable. Nothing
/// happens on a kernel before Linux 6.3; whether it is forbidden now.
#[must_use]
pub fn deny_write_execute() -> bool {
    #[expect(unsafe_code, reason = "a system call that has no safe name yet")]
    // SAFETY: the call takes numbers alone, and touches no memory of the process.
    let answer = unsafe { libc::prctl(libc::PR_SET_MDWE, libc::PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) };
    answer == 0
}
