//! A loader that loads nothing into the kernel.

use std::os::fd::AsFd;

use glasspool_abi::control::{Channel, FromLoader, LoadPrograms, ProgramPart};
use glasspool_abi::create_slot_memory;
use glasspool_abi::times::PAGE_BYTES;

/// Does what `FAKE_LOADER` says.
pub(crate) fn load(channel: &Channel) {
    let (asked, _): (LoadPrograms, _) = channel.receive().expect("is asked");
    match super::behaviour("FAKE_LOADER").as_str() {
        "hangs" => {
            // Until the supervisor is gone; it sends nothing more.
            channel.receive::<LoadPrograms>().expect_err("nothing comes");
        }
        "dies" => std::process::abort(),
        "pretends" => {
            let bytes = usize::try_from(asked.pages).expect("fits") * PAGE_BYTES;
            let memory = create_slot_memory(bytes).expect("a memory file");
            for part in [
                ProgramPart::Link,
                ProgramPart::Workers,
                ProgramPart::Layouts,
                ProgramPart::Counts,
                ProgramPart::Ring,
                ProgramPart::Pages,
            ] {
                let part = FromLoader::Part(part);
                channel.send(&part, &[memory.as_fd()]).expect("sends");
            }
            channel.send(&FromLoader::Loaded, &[]).expect("sends");
        }
        _ => {
            let refused = FromLoader::Refused {
                name: "fake".to_owned(),
                reason: "this loader is not real".to_owned(),
            };
            channel.send(&refused, &[]).expect("sends");
        }
    }
}
