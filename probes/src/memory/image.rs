//! Memory as a list of byte regions: for tests, fuzzing and saved samples.

use super::{ReadError, TargetAddr, TargetMemory};

/// Byte regions at addresses of one's choice. A later region hides an earlier one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    regions: Vec<(TargetAddr, Vec<u8>)>,
}

impl Image {
    /// An address space with nothing in it.
    #[must_use]
    pub fn new() -> Image {
        Image::default()
    }

    /// Maps `bytes` at `addr`.
    pub fn map(&mut self, addr: TargetAddr, bytes: impl Into<Vec<u8>>) {
        self.regions.push((addr, bytes.into()));
    }

    /// Overwrites mapped bytes. Says whether all of them were mapped.
    pub fn write(&mut self, addr: TargetAddr, bytes: &[u8]) -> bool {
        for (start, region) in self.regions.iter_mut().rev() {
            let Some(skip) = addr
                .0
                .checked_sub(start.0)
                .and_then(|skip| usize::try_from(skip).ok())
            else {
                continue;
            };
            if let Some(hole) = region
                .get_mut(skip..)
                .and_then(|rest| rest.get_mut(..bytes.len()))
            {
                hole.copy_from_slice(bytes);
                return true;
            }
        }
        false
    }
}

impl TargetMemory for Image {
    fn read_prefix(&self, addr: TargetAddr, buf: &mut [u8]) -> Result<usize, ReadError> {
        if buf.is_empty() {
            return Ok(0);
        }
        let found = self.regions.iter().rev().find_map(|(start, bytes)| {
            let skip = usize::try_from(addr.0.checked_sub(start.0)?).ok()?;
            bytes.get(skip..).filter(|rest| !rest.is_empty())
        });
        let rest = found.ok_or(ReadError::Fault { addr })?;
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_over_the_end_gives_the_prefix_and_names_the_first_missing_byte() {
        let mut image = Image::new();
        image.map(TargetAddr(0x1000), *b"abcdef");
        let mut buf = [0; 4];
        assert_eq!(image.read_prefix(TargetAddr(0x1003), &mut buf), Ok(3));
        assert_eq!(&buf[..3], b"def");
        let missing = ReadError::Fault {
            addr: TargetAddr(0x1006),
        };
        assert_eq!(image.read(TargetAddr(0x1003), &mut buf), Err(missing));
        assert!(image.read(TargetAddr(u64::MAX), &mut buf).is_err());
    }
}
