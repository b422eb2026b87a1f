//! What stands in for the programs in a build without them.

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd};

use glasspool_abi::zend::PhpBuild;

use crate::ladder::Unavailable;
use crate::record::Wait;
use crate::times::Times;
use crate::{Drained, RegisterError, Settings, SlotIndex, WorkerId};

/// Programs that this build does not have: there is no value of this type.
#[derive(Debug)]
pub struct Waits(Infallible);

#[expect(missing_docs, reason = "as in the build with programs; never called")]
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
