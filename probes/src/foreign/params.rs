//! The FastCGI parameters of the request that a php-fpm or php-cgi worker serves, of which
//! one is read: `REQUEST_URI`, what the client asked for. PHP's own request info has the
//! script's name instead, which is `/index.php` for every page of most applications.
//!
//! `SG(server_context)` of these two SAPIs is a `fcgi_request` with a hash of all
//! parameters in it. Both are private to main/fastcgi.c; they are the same in PHP 7.4 to
//! 8.5, in which they have been read. Nothing of them is believed unless the hash has
//! `FCGI_ROLE` with the value `RESPONDER`, as every hash has that this server filled.

use crate::memory::{Batch, Slice, TargetAddr, TargetMemory};
use crate::php::text::{PATH_CAP, c_string};

/// `fcgi_request.env.buckets`: behind nine numbers, two pointers, a buffer of 8 KiB and 16
/// bytes, three functions, a number, 128 pointers and one.
const BUCKETS: u64 = 40 + 2 * 8 + 8_192 + 16 + 3 * 8 + 8 + 128 * 8 + 8;
/// `fcgi_hash_buckets`: how many of its buckets are used, the next block, 128 buckets. The
/// first block to be filled is the last in the chain, and the only one of most requests.
const BLOCK: usize = 16 + 128 * BUCKET;
/// `fcgi_hash_bucket`: hash, length and pointer of the name, length and pointer of the
/// value, two links.
const BUCKET: usize = 48;
/// Blocks that are looked at: 1,024 parameters.
const MAX_BLOCKS: usize = 8;

const ROLE: (&[u8], &[u8]) = (b"FCGI_ROLE", b"RESPONDER\0");
const URI: &[u8] = b"REQUEST_URI";

/// What the client asked for, or `None` if that is not to be known.
pub(super) fn request_uri(mem: &impl TargetMemory, server_context: u64) -> Option<String> {
    let mut next = pointer(mem, plausible(server_context)?.checked_add(BUCKETS)?)?;
    let (mut uri, mut is_known) = (None, false);
    for _ in 0..MAX_BLOCKS {
        let Some(at) = plausible(next) else { break };
        let mut block = vec![0; BLOCK];
        mem.read(TargetAddr(at), &mut block).ok()?;
        let used = (u32_at(&block, 0)? as usize).min(128);
        for [name, value] in candidates(mem, block.get(16..16 + used * BUCKET)?)? {
            if name == ROLE.0 && value == ROLE.1 {
                is_known = true;
            } else if name == URI {
                uri = c_string(&value, PATH_CAP);
            }
        }
        next = u64_at(&block, 8)?;
    }
    uri.filter(|_| is_known)
}

/// Names and values (with the terminator) of the buckets whose names are as long as one of
/// those that are looked for.
fn candidates(mem: &impl TargetMemory, buckets: &[u8]) -> Option<Vec<[Vec<u8>; 2]>> {
    let mut batch = Batch::default();
    let mut found = Vec::new();
    for bucket in buckets.chunks_exact(BUCKET) {
        let name_len = u32_at(bucket, 4)? as usize;
        if name_len != ROLE.0.len() && name_len != URI.len() {
            continue;
        }
        let value_len = (u32_at(bucket, 16)? as usize).min(PATH_CAP);
        let name = batch.want(TargetAddr(u64_at(bucket, 8)?), name_len);
        let value = batch.want(TargetAddr(u64_at(bucket, 24)?), value_len + 1);
        found.push([name, value]);
    }
    mem.read_batch(&mut batch).ok()?;
    let bytes = |pair: [Slice; 2]| pair.map(|slice| batch.get(slice).to_vec());
    Some(found.into_iter().map(bytes).collect())
}

fn plausible(addr: u64) -> Option<u64> {
    (addr != 0 && addr.is_multiple_of(8)).then_some(addr)
}

fn pointer(mem: &impl TargetMemory, addr: u64) -> Option<u64> {
    let mut bytes = [0; 8];
    mem.read(TargetAddr(addr), &mut bytes).ok()?;
    Some(u64::from_le_bytes(bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Image;

    const CONTEXT: u64 = 0x50_0000_0000;
    const FIRST: u64 = 0x51_0000_0000;
    const TEXT: u64 = 0x52_0000_0000;

    /// A worker with these parameters.
    fn with(params: &[(&str, &str)]) -> Image {
        let mut image = Image::new();
        let mut block = vec![0; BLOCK];
        block[..4].copy_from_slice(&u32::try_from(params.len()).unwrap().to_le_bytes());
        let mut text = Vec::new();
        for (index, (name, value)) in params.iter().enumerate() {
            let bucket = &mut block[16 + index * BUCKET..][..BUCKET];
            for (at, string) in [(4, name), (16, value)] {
                bucket[at..at + 4].copy_from_slice(&u32::try_from(string.len()).unwrap().to_le_bytes());
                let addr = TEXT + text.len() as u64;
                let pointer = if at == 4 { 8 } else { 24 };
                bucket[pointer..pointer + 8].copy_from_slice(&addr.to_le_bytes());
                text.extend(string.bytes().chain([0]));
            }
        }
        image.map(TargetAddr(CONTEXT + BUCKETS), FIRST.to_le_bytes());
        image.map(TargetAddr(FIRST), block);
        image.map(TargetAddr(TEXT), text);
        image
    }

    #[test]
    fn only_a_hash_of_a_fastcgi_server_is_believed() {
        let uri = |params: &[(&str, &str)]| request_uri(&with(params), CONTEXT);
        let role = ("FCGI_ROLE", "RESPONDER");
        let asked = ("REQUEST_URI", "/orders/7?x=1");
        assert_eq!(
            uri(&[role, ("PATH", "/bin"), asked]).as_deref(),
            Some("/orders/7?x=1")
        );
        assert_eq!(uri(&[asked]), None, "no role");
        assert_eq!(uri(&[("FCGI_ROLE", "something"), asked]), None);
        assert_eq!(uri(&[role]), None);
        for context in [0, 1, CONTEXT + 8, u64::MAX - 7] {
            assert_eq!(request_uri(&with(&[role, asked]), context), None);
        }
    }

    #[test]
    fn a_chain_without_an_end_and_impossible_counts_are_bounded() {
        let mut image = with(&[("FCGI_ROLE", "RESPONDER"), ("REQUEST_URI", "/x")]);
        image.write(TargetAddr(FIRST + 8), &FIRST.to_le_bytes());
        assert_eq!(request_uri(&image, CONTEXT).as_deref(), Some("/x"));
        image.write(TargetAddr(FIRST), &u32::MAX.to_le_bytes());
        image.write(TargetAddr(FIRST + 16 + 4), &u32::MAX.to_le_bytes());
        assert_eq!(request_uri(&image, CONTEXT), None);
    }
}
