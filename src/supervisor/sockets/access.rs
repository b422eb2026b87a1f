//! Who may connect to a unix socket: its mode, its owner, or an ACL.
//!
//! The file is held by a descriptor meanwhile. Its folder may belong to somebody less
//! trusted than we are, who could put a link in its place.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use super::error::ListenError;
use crate::config::{self, Pool};
use crate::logs::ErrorLog;
use crate::supervisor::identity;

/// Sets all of it for a socket that was just bound.
pub(super) fn grant(pool: &Pool, path: &Path, log: &ErrorLog) -> Result<(), ListenError> {
    let name = || pool.name.clone();
    let shown = || path.display().to_string();
    let mode_error = |why: io::Error| ListenError::Mode {
        pool: name(),
        path: shown(),
        why,
    };
    let node = hold(path).map_err(mode_error)?;
    // A descriptor opened with O_PATH allows neither fchmod(2) nor fsetxattr(2) itself;
    // its name in /proc always means the very same file, open(2).
    let same = format!("/proc/self/fd/{}", node.as_raw_fd());
    let mode = Mode::from_raw_mode(pool.socket_mode.0);
    rustix::fs::chmod(&same, mode).map_err(|e| mode_error(e.into()))?;
    let (users, groups) = identity::socket_acl(pool)?;
    if !users.is_empty() || !groups.is_empty() {
        ignore_owner(pool, log);
        return extend_acl(&same, &users, &groups).map_err(|why| ListenError::Acl {
            pool: name(),
            path: shown(),
            why,
        });
    }
    let (owner, group) = identity::socket_owner(pool)?;
    if owner.is_none() && group.is_none() {
        return Ok(());
    }
    let (owner, group) = (owner.map(Uid::from_raw), group.map(Gid::from_raw));
    rustix::fs::chownat(node.as_fd(), c"", owner, group, AtFlags::EMPTY_PATH).map_err(|e| {
        ListenError::Owner {
            pool: name(),
            path: shown(),
            why: e.into(),
        }
    })
}

fn hold(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let node = rustix::fs::open(path, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&node)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Socket => Ok(node),
        _ => Err(io::Error::other("it was replaced by something that is no socket")),
    }
}

fn ignore_owner(pool: &Pool, log: &ErrorLog) {
    let configured = [
        ("listen.owner", &pool.socket_owner),
        ("listen.group", &pool.socket_group),
    ];
    for (directive, value) in configured {
        let value = match value {
            None => continue,
            Some(config::Identity::Name(name)) => name.clone(),
            Some(config::Identity::Id(number)) => number.to_string(),
        };
        log.warning(format_args!(
            "[pool {}] ACL set, {directive} = '{value}' is ignored",
            pool.name
        ));
    }
}

/// The attribute that holds a file's ACL, acl(5).
const ATTRIBUTE: &CStr = c"system.posix_acl_access";
/// Longest attribute that is read: 500 entries, far above what file systems keep.
const MOST_BYTES: usize = 4 + 500 * ENTRY_BYTES;
const ENTRY_BYTES: usize = 8;
const READ_WRITE: u16 = 6;

/// Gives read and write access to these users and groups.
fn extend_acl(path: &str, users: &[u32], groups: &[u32]) -> io::Result<()> {
    let mut stored = vec![0; MOST_BYTES];
    let mut acl = match rustix::fs::getxattr(path, ATTRIBUTE, &mut stored[..]) {
        Ok(length) => Acl::decode(&stored[..length])?,
        Err(Errno::NODATA) => Acl::of_mode(rustix::fs::stat(path)?.st_mode),
        Err(e) => return Err(e.into()),
    };
    users.iter().for_each(|uid| acl.allow(Tag::User, *uid));
    groups.iter().for_each(|gid| acl.allow(Tag::Group, *gid));
    Ok(rustix::fs::setxattr(
        path,
        ATTRIBUTE,
        &acl.encode(),
        XattrFlags::empty(),
    )?)
}

/// An access control list as the kernel stores it: `linux/posix_acl_xattr.h`, all
/// numbers little endian.
#[derive(Debug, PartialEq, Eq)]
struct Acl(Vec<Entry>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    tag: u16,
    /// [`NO_ID`] where the tag says everything.
    id: u32,
    rights: u16,
}

/// Whom an entry is for. The kernel wants them in this order.
#[derive(Debug, Clone, Copy)]
enum Tag {
    Owner = 0x01,
    User = 0x02,
    OwnerGroup = 0x04,
    Group = 0x08,
    Mask = 0x10,
    Other = 0x20,
}

const VERSION: u32 = 2;
const NO_ID: u32 = u32::MAX;

impl Acl {
    /// What a file without a list has.
    fn of_mode(mode: u32) -> Acl {
        let entry = |tag: Tag, shift: u32| Entry {
            tag: tag as u16,
            id: NO_ID,
            rights: u16::try_from(mode >> shift & 7).expect("three bits"),
        };
        Acl(vec![
            entry(Tag::Owner, 6),
            entry(Tag::OwnerGroup, 3),
            entry(Tag::Other, 0),
        ])
    }

    fn allow(&mut self, tag: Tag, id: u32) {
        let tag = tag as u16;
        match self.0.iter_mut().find(|entry| (entry.tag, entry.id) == (tag, id)) {
            Some(entry) => entry.rights |= READ_WRITE,
            None => self.0.push(Entry {
                tag,
                id,
                rights: READ_WRITE,
            }),
        }
    }

    fn decode(bytes: &[u8]) -> io::Result<Acl> {
        let bad = || io::Error::other("the present ACL is in an unknown format");
        let (version, entries) = bytes.split_first_chunk().ok_or_else(bad)?;
        let (entries, rest) = entries.as_chunks::<ENTRY_BYTES>();
        if u32::from_le_bytes(*version) != VERSION || !rest.is_empty() {
            return Err(bad());
        }
        let entry = |bytes: &[u8; ENTRY_BYTES]| {
            let [t0, t1, r0, r1, id @ ..] = *bytes;
            Entry {
                tag: u16::from_le_bytes([t0, t1]),
                id: u32::from_le_bytes(id),
                rights: u16::from_le_bytes([r0, r1]),
            }
        };
        Ok(Acl(entries.iter().map(entry).collect()))
    }

    /// In order, and with a mask that takes nothing away.
    fn encode(mut self) -> Vec<u8> {
        self.0.retain(|entry| entry.tag != Tag::Mask as u16);
        let masked = [Tag::User as u16, Tag::OwnerGroup as u16, Tag::Group as u16];
        let masked = self.0.iter().filter(|entry| masked.contains(&entry.tag));
        let rights = masked.fold(0, |all, entry| all | entry.rights);
        self.0.push(Entry {
            tag: Tag::Mask as u16,
            id: NO_ID,
            rights,
        });
        self.0.sort_unstable();
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for entry in self.0 {
            bytes.extend(entry.tag.to_le_bytes());
            bytes.extend(entry.rights.to_le_bytes());
            bytes.extend(entry.id.to_le_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(bytes: &[u8]) -> Vec<(u16, u32, u16)> {
        let acl = Acl::decode(bytes).expect("valid");
        acl.0
            .iter()
            .map(|entry| (entry.tag, entry.id, entry.rights))
            .collect()
    }

    #[test]
    fn a_list_is_sorted_and_its_mask_lets_everything_through() {
        let mut acl = Acl::of_mode(0o140_600);
        acl.allow(Tag::Group, 12);
        acl.allow(Tag::User, 33);
        acl.allow(Tag::User, 5);
        acl.allow(Tag::User, 33);
        let expected = vec![
            (0x01, NO_ID, 6),
            (0x02, 5, 6),
            (0x02, 33, 6),
            (0x04, NO_ID, 0),
            (0x08, 12, 6),
            (0x10, NO_ID, 6),
            (0x20, NO_ID, 0),
        ];
        assert_eq!(entries(&acl.encode()), expected);
    }

    #[test]
    fn what_is_there_stays_and_the_mask_is_made_anew() {
        let mut acl = Acl::of_mode(0o754);
        acl.allow(Tag::User, 5);
        let mut again = Acl::decode(&acl.encode()).expect("valid");
        again.allow(Tag::Group, 7);
        let expected = vec![
            (0x01, NO_ID, 7),
            (0x02, 5, 6),
            (0x04, NO_ID, 5),
            (0x08, 7, 6),
            (0x10, NO_ID, 7),
            (0x20, NO_ID, 4),
        ];
        assert_eq!(entries(&again.encode()), expected);
    }

    #[test]
    fn other_formats_are_refused() {
        for bytes in [&b""[..], b"\x02\0\0", b"\x03\0\0\0", b"\x02\0\0\0\x01\0\x06\0"] {
            assert!(Acl::decode(bytes).is_err(), "{bytes:?}");
        }
        assert!(Acl::decode(b"\x02\0\0\0").is_ok());
    }
}
