//! Which PHP an engine hosts and how it is started: what `[php]`, the command line and
//! `[pool.NAME.php]` say, put together.

use std::path::{Path, PathBuf};

use glasspool_abi::control::{EngineStart, ToEngine};

use super::engine::EngineSource;
use crate::config::PoolPhp;

/// How PHP is started, in whatever executable.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PhpOptions {
    /// php.ini or its folder.
    pub(super) ini: Option<PathBuf>,
    /// Read no php.ini and no scan directory.
    pub(super) no_ini: bool,
    /// Compile with information for debuggers and profilers.
    pub(super) extended_info: bool,
    /// INI entries `name=value` that win over php.ini.
    pub(super) define: Vec<String>,
}

/// Which PHP, and how it is started. Pools with the same share an engine, and with it
/// opcache's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recipe {
    pub(super) source: EngineSource,
    pub(super) options: PhpOptions,
}

impl Recipe {
    /// That of a pool: its own words over everybody's.
    pub(super) fn of_pool(&self, php: &PoolPhp) -> Recipe {
        let source = match (&self.source, &php.binary) {
            (EngineSource::Php { .. }, Some(binary)) => EngineSource::Php {
                binary: Some(binary.clone()),
            },
            (source, Some(_) | None) => source.clone(),
        };
        let everybodys = &self.options;
        let options = PhpOptions {
            ini: php.ini.clone().or_else(|| everybodys.ini.clone()),
            no_ini: everybodys.no_ini && php.ini.is_none(),
            extended_info: everybodys.extended_info,
            define: everybodys.define.iter().chain(&php.define).cloned().collect(),
        };
        Recipe { source, options }
    }
}

/// The message that starts PHP.
pub(super) fn start_message(binary: &Path, options: &PhpOptions) -> ToEngine {
    let define = options.define.iter().map(|entry| match entry.split_once('=') {
        Some((name, value)) => (name.trim().to_owned(), value.trim().to_owned()),
        None => (entry.trim().to_owned(), "1".to_owned()),
    });
    ToEngine::Start(EngineStart {
        supervisor: super::own_pid(),
        binary: binary.to_string_lossy().into_owned(),
        ini: options.ini.as_ref().map(|ini| ini.to_string_lossy().into_owned()),
        no_ini: options.no_ini,
        extended_info: options.extended_info,
        define: define.collect(),
        variables: std::env::vars_os()
            .filter_map(|(name, _)| name.into_string().ok())
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_split() {
        let options = PhpOptions {
            no_ini: true,
            define: vec!["memory_limit = 1G".to_owned(), "opcache.enable".to_owned()],
            ..PhpOptions::default()
        };
        let ToEngine::Start(start) = start_message(Path::new("/usr/sbin/php-fpm"), &options) else {
            panic!("not a start")
        };
        assert!(start.no_ini && !start.extended_info && start.ini.is_none());
        let expected = [("memory_limit", "1G"), ("opcache.enable", "1")];
        assert_eq!(start.define, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
    }

    #[test]
    fn a_pools_own_php_wins_over_everybodys() {
        let everybodys = Recipe {
            source: EngineSource::Php { binary: None },
            options: PhpOptions {
                ini: Some("/etc/php.ini".into()),
                no_ini: true,
                extended_info: true,
                define: vec!["a=1".to_owned()],
            },
        };
        assert_eq!(everybodys.of_pool(&PoolPhp::default()), everybodys);
        let own = PoolPhp {
            binary: Some("/opt/php".into()),
            ini: Some("/srv/php.ini".into()),
            define: vec!["a=2".to_owned()],
        };
        let recipe = everybodys.of_pool(&own);
        let binary = own.binary.clone();
        assert_eq!(recipe.source, EngineSource::Php { binary });
        assert_eq!(recipe.options.ini, own.ini);
        assert_eq!(recipe.options.define, ["a=1", "a=2"]);
        assert!(!recipe.options.no_ini && recipe.options.extended_info);
    }
}
