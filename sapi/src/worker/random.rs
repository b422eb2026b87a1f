//! Ids for traces and spans.

use super::clock;

/// Random bytes fetched from the kernel at once.
const POOL_BYTES: usize = 4096;

/// Random bytes of the kernel, fetched many at a time so that ids cost no system
/// call each.
#[derive(Debug)]
pub(super) struct RandomBytes {
    pool: Box<[u8; POOL_BYTES]>,
    used: usize,
}

impl RandomBytes {
    pub(super) fn new() -> RandomBytes {
        RandomBytes {
            pool: Box::new([0; POOL_BYTES]),
            used: POOL_BYTES,
        }
    }

    /// Never all zero, which would be an invalid id.
    pub(super) fn take<const N: usize>(&mut self) -> [u8; N] {
        loop {
            if self.used + N > POOL_BYTES {
                self.refill();
            }
            let mut id = [0; N];
            id.copy_from_slice(&self.pool[self.used..self.used + N]);
            self.used += N;
            if id != [0; N] {
                return id;
            }
        }
    }

    fn refill(&mut self) {
        let mut filled = 0;
        while filled < POOL_BYTES {
            match rustix::rand::getrandom(&mut self.pool[filled..], rustix::rand::GetRandomFlags::empty()) {
                Ok(count) => filled += count,
                Err(rustix::io::Errno::INTR) => {}
                // getrandom(2) fails otherwise only on kernels that do not have it.
                Err(_) => {
                    let mut seed = clock::unix_ns() | 1;
                    for byte in &mut self.pool[filled..] {
                        seed ^= seed << 13;
                        seed ^= seed >> 7;
                        seed ^= seed << 17;
                        *byte = seed.to_ne_bytes()[0];
                    }
                    filled = POOL_BYTES;
                }
            }
        }
        self.used = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ() {
        let mut random = RandomBytes::new();
        let ids: std::collections::HashSet<[u8; 8]> = (0..2000).map(|_| random.take()).collect();
        assert_eq!(ids.len(), 2000);
    }
}
