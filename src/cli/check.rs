//! `glasspool check`: the configuration, and what would run with it, for people.

use std::process::ExitCode;

use super::Failure;
use super::flags::Flags;
use super::load::{fpm_conf, load};
use crate::supervisor;

pub(super) fn check(flags: &Flags, say: impl Fn(&str)) -> Result<ExitCode, Failure> {
    let settings = load(flags).map_err(Failure::config)?;
    for notice in &settings.notices {
        say(&notice.text);
    }
    let host = supervisor::choose(settings.overlay.php.binary.as_deref()).map_err(Failure::config)?;
    say(&format!(
        "PHP: {} ({}), hosting {}",
        host.binary.display(),
        host.build,
        host.object.display()
    ));
    for pool in &settings.pools {
        let slow = match pool.slow_after {
            Some(after) => format!("requests slower than {after:?} are explained"),
            None => "no request is looked into".to_owned(),
        };
        say(&format!(
            "[pool {}] {} workers on {}; {slow}",
            pool.name,
            pool.max_children,
            supervisor::listen_name(&pool.listen)
        ));
    }
    let path = fpm_conf(flags);
    say(&format!(
        "configuration file {} test is successful",
        path.display()
    ));
    Ok(ExitCode::SUCCESS)
}
