//! Answering a batch with fewer system calls than requests: those that lie close
//! together are read at once.

use super::{Batch, ReadError, TargetAddr, TargetMemory};

/// Requests further apart than this are not joined: copying the gap would cost more
/// than the system call it saves (475 ns for 64 bytes, 565 ns for 4 KiB, 2.8 us for 32).
const JOIN_GAP: u64 = 6 * 1024;
/// Longest joined read.
const JOIN_SPAN: u64 = 64 * 1024;

/// Answers `batch` from `mem`, whose every read is a system call.
pub(super) fn read_joined(mem: &impl TargetMemory, batch: &mut Batch) -> Result<(), ReadError> {
    let extents: Vec<(TargetAddr, usize)> = batch.extents().collect();
    let mut order: Vec<usize> = (0..extents.len()).collect();
    order.sort_unstable_by_key(|&index| extents[index].0);
    let end_of = |index: usize| extents[index].0.0.saturating_add(extents[index].1 as u64);
    let mut scratch = Vec::new();
    let mut rest = order.as_slice();
    while let [first, others @ ..] = rest {
        let start = extents[*first].0;
        let mut end = end_of(*first);
        let mut joined = 1;
        for &next in others {
            let until = end.max(end_of(next));
            if extents[next].0.0 > end.saturating_add(JOIN_GAP) || until - start.0 > JOIN_SPAN {
                break;
            }
            end = until;
            joined += 1;
        }
        let (group, after) = rest.split_at(joined);
        rest = after;
        let len = usize::try_from(end - start.0).unwrap_or(0);
        let got = if joined == 1 {
            0
        } else {
            scratch.resize(len, 0);
            match mem.read_prefix(start, &mut scratch) {
                Ok(got) => got,
                Err(ReadError::Fault { .. }) => 0,
                Err(whole) => return Err(whole),
            }
        };
        for &index in group {
            if !batch.answer_from(index, start, &scratch[..got]) {
                batch.answer(index, &mut |addr, buf| mem.read_prefix(addr, buf))?;
            }
        }
    }
    Ok(())
}
