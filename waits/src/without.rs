//! What stands in for the programs in a build without them. Of most types there is no value,
//! so their methods are never called.

#![expect(missing_docs, reason = "as in the build with programs")]

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use glasspool_abi::control::ProgramPart;
use glasspool_abi::times;
use glasspool_abi::zend::PhpBuild;

use crate::ladder::Unavailable;
use crate::record::{Record, Wait};
use crate::times::Times;
use crate::{Drained, RegisterError, Settings, SlotIndex, WorkerId};

pub fn load(_: &Settings) -> Result<Vec<(ProgramPart, OwnedFd)>, Unavailable> {
    Err(Unavailable::NotBuilt)
}

pub fn run_clocks(_: &[impl AsFd], _: bool) -> io::Result<()> {
    Ok(())
}

fn not_built() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, Unavailable::NotBuilt)
}

/// Watches nobody.
#[derive(Debug)]
pub struct Roster;

impl Roster {
    #[must_use]
    pub fn new(_: OwnedFd, _: OwnedFd, _: u32) -> Roster {
        Roster
    }
    pub fn register(
        &mut self,
        _: impl AsFd,
        worker: WorkerId,
        _: SlotIndex,
        _: Option<&PhpBuild>,
    ) -> Result<(), RegisterError> {
        Err(RegisterError::Kernel {
            worker,
            what: "watch the waits",
            source: not_built(),
        })
    }
    pub fn register_since(
        &mut self,
        pidfd: impl AsFd,
        worker: WorkerId,
        slot: SlotIndex,
        php: Option<&PhpBuild>,
        _: Option<u64>,
    ) -> Result<(), RegisterError> {
        self.register(pidfd, worker, slot, php)
    }
    pub fn unregister(&mut self, _: impl AsFd, _: WorkerId) -> Result<(), RegisterError> {
        Ok(())
    }
}

#[derive(Debug)]
pub struct Records(Infallible);

impl Records {
    pub fn new(_: OwnedFd) -> io::Result<Records> {
        Err(not_built())
    }
    pub fn drain(&mut self, _: usize, _: impl FnMut(Record)) -> Drained {
        match self.0 {}
    }
    pub fn malformed(&self) -> u64 {
        match self.0 {}
    }
}

impl AsFd for Records {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self.0 {}
    }
}

#[derive(Debug)]
pub struct Eye(Infallible);

impl Eye {
    pub fn new(_: OwnedFd, _: OwnedFd, _: OwnedFd, _: u32) -> io::Result<Eye> {
        Err(not_built())
    }
    pub fn runs(&self, _: SlotIndex) -> bool {
        match self.0 {}
    }
    pub fn going_on(&self, _: impl AsFd) -> Option<Wait> {
        match self.0 {}
    }
    pub fn times(&self, _: SlotIndex, _: u64) -> Option<times::Times> {
        match self.0 {}
    }
    pub fn lost(&self) -> u64 {
        match self.0 {}
    }
    pub fn missed(&self) -> u64 {
        match self.0 {}
    }
    pub fn odd(&self) -> u64 {
        match self.0 {}
    }
}

#[derive(Debug)]
pub struct Waits(Infallible);

impl Waits {
    pub fn load(_: &Settings) -> Result<Waits, Unavailable> {
        Err(Unavailable::NotBuilt)
    }
    pub fn slots(&self) -> u32 {
        match self.0 {}
    }
    pub fn register(
        &mut self,
        _: impl AsFd,
        _: WorkerId,
        _: SlotIndex,
        _: Option<&PhpBuild>,
    ) -> Result<(), RegisterError> {
        match self.0 {}
    }
    pub fn unregister(&mut self, _: impl AsFd, _: WorkerId) -> Result<(), RegisterError> {
        match self.0 {}
    }
    pub fn times(&self, _: SlotIndex) -> Option<Times> {
        match self.0 {}
    }
    pub fn times_of(&self, _: impl AsFd) -> Option<Times> {
        match self.0 {}
    }
    pub fn going_on(&self, _: impl AsFd) -> Option<Wait> {
        match self.0 {}
    }
    pub fn drain(&mut self, _: usize, _: impl FnMut(Wait)) -> Drained {
        match self.0 {}
    }
    pub fn ring(&self) -> BorrowedFd<'_> {
        match self.0 {}
    }
    pub fn lost(&self) -> u64 {
        match self.0 {}
    }
    pub fn missed(&self) -> u64 {
        match self.0 {}
    }
    pub fn odd(&self) -> u64 {
        match self.0 {}
    }
    pub fn malformed(&self) -> u64 {
        match self.0 {}
    }
}
