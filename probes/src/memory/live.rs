//! A live process by whichever way is open.

use std::os::fd::OwnedFd;

use super::{Batch, MemFd, ReadError, TargetAddr, TargetMemory, VmRead};

/// The memory of a running process. Never written to, never stops the process.
#[derive(Debug)]
pub enum LiveMemory {
    /// Through an open `/proc/PID/mem`.
    Mem(MemFd<OwnedFd>),
    /// Through `process_vm_readv`.
    Vm(VmRead),
}

impl LiveMemory {
    /// Whether the process still runs the program that it ran when this was made. What
    /// is read of another one is an error only by the way of [`MemFd`].
    #[must_use]
    pub fn is_same_program(&self) -> bool {
        match self {
            LiveMemory::Mem(_) => true,
            LiveMemory::Vm(vm) => vm.is_same_program(),
        }
    }
}

impl TargetMemory for LiveMemory {
    fn read_prefix(&self, addr: TargetAddr, buf: &mut [u8]) -> Result<usize, ReadError> {
        match self {
            LiveMemory::Mem(mem) => mem.read_prefix(addr, buf),
            LiveMemory::Vm(vm) => vm.read_prefix(addr, buf),
        }
    }

    fn read_batch(&self, batch: &mut Batch) -> Result<(), ReadError> {
        match self {
            LiveMemory::Mem(mem) => mem.read_batch(batch),
            LiveMemory::Vm(vm) => vm.read_batch(batch),
        }
    }
}
