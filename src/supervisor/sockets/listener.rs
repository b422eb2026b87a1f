//! One listening socket, and the file that stands for it.

use std::fs::Metadata;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::key::Key;
use super::queue::{self, Queue};
use crate::config::ListenAddress;

/// A listening socket. Dropping it closes it and removes its file, if that is still its
/// own.
#[derive(Debug)]
pub struct Listener {
    /// The socket itself.
    pub socket: Arc<OwnedFd>,
    key: Key,
    /// `None` for TCP.
    node: Option<Node>,
}

impl Listener {
    pub(super) fn new(socket: OwnedFd, key: Key, node: Option<Node>) -> Listener {
        Listener {
            socket: Arc::new(socket),
            key,
            node,
        }
    }

    /// php-fpm's name for it.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Its descriptor's number, for log lines.
    pub fn number(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// How many connections wait to be accepted; zeros where the kernel does not tell.
    /// Cost: one exchange with the kernel, about 10 µs.
    pub fn queue(&self) -> Queue {
        queue::of(&self.socket).unwrap_or_default()
    }

    /// Whether it is what listens at one of these addresses, if by another path.
    pub(super) fn answers_to(&self, wanted: &Wanted) -> bool {
        let file = self.node.as_ref().map(|node| node.file);
        wanted.keys.contains(&self.key) || (file.is_some() && file == wanted.file)
    }
}

/// A socket that a pool wants.
#[derive(Debug)]
pub(super) struct Wanted {
    keys: Vec<Key>,
    /// What lies at its path, links followed.
    file: Option<FileId>,
}

impl Wanted {
    pub(super) fn new(listen: &ListenAddress) -> Wanted {
        let keys = Key::of_pool(listen);
        let paths = keys.iter().filter_map(Key::path);
        let file = paths.filter_map(|path| std::fs::metadata(path).ok()).next();
        Wanted {
            file: file.as_ref().map(FileId::of),
            keys,
        }
    }
}

/// Which file something is, whatever its names are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    fn of(found: &Metadata) -> FileId {
        FileId {
            device: found.dev(),
            inode: found.ino(),
        }
    }
}

/// The file of a unix socket.
#[derive(Debug)]
pub(super) struct Node {
    path: PathBuf,
    file: FileId,
    /// Whether it is removed when dropped.
    ours: bool,
}

impl Node {
    /// The socket that lies at that path; its file is removed when this is dropped.
    ///
    /// # Errors
    /// When there is none, or something that is no socket.
    pub(super) fn at(path: &Path) -> io::Result<Node> {
        let found = std::fs::symlink_metadata(path)?;
        if !found.file_type().is_socket() {
            return Err(io::Error::other("it is no socket any more"));
        }
        Ok(Node {
            path: path.to_path_buf(),
            file: FileId::of(&found),
            ours: true,
        })
    }

    /// Its file belongs to somebody else, who goes on using it.
    pub(super) fn of_another(self) -> Node {
        let mut node = self;
        node.ours = false;
        node
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // A successor may have bound the path meanwhile; its file is another one.
        let is_its_own =
            || std::fs::symlink_metadata(&self.path).is_ok_and(|found| FileId::of(&found) == self.file);
        if self.ours && is_its_own() {
            // Nothing is left to be told, and nobody to tell.
            std::fs::remove_file(&self.path).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_successors_file_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("php.sock");
        let _first = UnixListener::bind(&path).expect("binds");
        let node = Node::at(&path).expect("is there");
        // Kept under another name, so that its inode number is not given away again.
        std::fs::rename(&path, folder.path().join("old.sock")).expect("renames");
        let _second = UnixListener::bind(&path).expect("binds");
        drop(node);
        assert!(path.exists());
        drop(Node::at(&path).expect("is there").of_another());
        assert!(path.exists());
        drop(Node::at(&path).expect("is there"));
        assert!(!path.exists());
        std::fs::write(&path, "text").expect("writes");
        assert!(Node::at(&path).is_err());
    }
}
