//! The files that servers are started with.

use std::fmt::Write;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::Spec;
use crate::BenchError;
use crate::load::Address;
use crate::process::run_tool;
use crate::stop::Stop;

/// Name of the pool.
const POOL: &str = "bench";
/// Listing modules takes as long as starting PHP.
const MODULES_LIMIT: Duration = Duration::from_secs(20);

/// php.ini of both servers. The modules' own files (Debian: `fpm/conf.d`) are read besides, by both.
const PHP_INI: &str = "\
; As php.ini-production has it, where that matters for speed.
memory_limit = 256M
max_execution_time = 30
max_input_time = 60
output_buffering = 4096
variables_order = GPCS
register_argc_argv = Off
zend.assertions = -1
display_errors = Off
log_errors = On
opcache.enable = 1
opcache.memory_consumption = 128
opcache.validate_timestamps = 1
opcache.revalidate_freq = 2
opcache.jit = off
";

/// How much Glasspool exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tracing {
    /// Nothing: no exporter, no sampling.
    Off,
    /// One request in a hundred, and slow and failed ones.
    OnePercent,
    /// Every request.
    All,
}

/// Programs in the kernel that tell what workers wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ebpf {
    /// Where they can be had: the default.
    Auto,
    /// Not used.
    Off,
    /// Without them the server does not start.
    Required,
}

/// A php.ini.
#[derive(Debug)]
pub struct Ini {
    /// Where it is.
    pub path: PathBuf,
}

impl Ini {
    /// Writes one into `dir`, and asks `php_fpm` whether opcache has to be named in it.
    ///
    /// # Errors
    /// The file cannot be written, php-fpm not be run.
    pub fn write(php_fpm: &Path, dir: &Path, stop: &Stop) -> Result<Self, BenchError> {
        let path = dir.join("php.ini");
        write(&path, PHP_INI)?;
        let mut command = Command::new(php_fpm);
        command
            .arg("-c")
            .arg(&path)
            .arg("-m")
            .env_remove("PHP_INI_SCAN_DIR");
        let modules = run_tool(command, &dir.join("modules"), MODULES_LIMIT, stop)?;
        if !modules.contains("Zend OPcache") {
            write(&path, &format!("zend_extension = opcache\n{PHP_INI}"))?;
        }
        Ok(Self { path })
    }
}

/// What was written for one server.
pub(super) struct Files {
    pub(super) address: Address,
    pub(super) conf: PathBuf,
    pub(super) overlay: Option<PathBuf>,
    pub(super) log: PathBuf,
    pub(super) slowlog: PathBuf,
}

impl Files {
    pub(super) fn write(spec: &Spec<'_>, sink: Option<SocketAddr>) -> Result<Self, BenchError> {
        let name = spec.side.name();
        let file = |end: &str| spec.dir.join(format!("{name}.{end}"));
        let address = if spec.tcp {
            Address::Tcp(free_port()?)
        } else {
            Address::Unix(file("sock"))
        };
        let overlay = (!is_php_fpm(spec.program)).then(|| file("toml"));
        let files = Self {
            address,
            conf: file("conf"),
            overlay,
            log: file("log"),
            slowlog: file("slow"),
        };
        for old in [&files.log, &files.slowlog] {
            // Of the server before; that there was none is no error.
            fs::remove_file(old).unwrap_or_default();
        }
        write(&files.conf, &php_fpm_conf(spec, &files))?;
        if let Some(overlay) = &files.overlay {
            write(overlay, &glasspool_toml(spec, sink))?;
        }
        Ok(files)
    }
}

/// Told by its name, as the program itself does.
pub(super) fn is_php_fpm(program: &Path) -> bool {
    program
        .file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with("php-fpm"))
}

fn php_fpm_conf(spec: &Spec<'_>, files: &Files) -> String {
    let listen = match &files.address {
        Address::Unix(path) => path.display().to_string(),
        Address::Tcp(address) => address.to_string(),
    };
    let mut text = format!(
        "[global]\nerror_log = {}\ndaemonize = no\n\n[{POOL}]\nlisten = {listen}\nlisten.mode = 0666\n\
         pm = static\npm.max_children = {}\n",
        files.log.display(),
        spec.workers,
    );
    if rustix::process::geteuid().is_root() {
        text += "user = www-data\ngroup = www-data\n";
    }
    if let Some(seconds) = spec.slow_after_s {
        let slowlog = files.slowlog.display();
        write!(
            text,
            "slowlog = {slowlog}\nrequest_slowlog_timeout = {seconds}s\n"
        )
        .expect("strings grow");
    }
    text + spec.more.pool
}

fn glasspool_toml(spec: &Spec<'_>, sink: Option<SocketAddr>) -> String {
    let mut text = format!("[php]\nbinary = {:?}\n\n[otel]\n", spec.php.display().to_string());
    match sink {
        Some(address) => {
            text += &format!(
                "endpoint = \"http://{address}\"\nprotocol = \"http/protobuf\"\ntraces = \"otlp\"\nlogs = \"otlp\"\n\
                 service_name = \"glasspool-bench\"\nflush = \"500ms\"\n"
            );
        }
        None => text += "traces = \"none\"\nlogs = \"none\"\n",
    }
    text += "\n[trace]\n";
    text += match spec.tracing {
        Tracing::Off => "sampler = \"always_off\"\n",
        Tracing::OnePercent => "sampler = \"parentbased_traceidratio\"\nratio = 0.01\n",
        Tracing::All => "sampler = \"always_on\"\n",
    };
    text += match spec.ebpf {
        Ebpf::Auto => "",
        Ebpf::Off => "\n[ebpf]\nmode = \"off\"\n",
        Ebpf::Required => "\n[ebpf]\nmode = \"required\"\n",
    };
    if spec.hold {
        text += "\n[slow]\nstop = \"always\"\n";
    }
    text + spec.more.overlay
}

/// A loopback port that was free a moment ago.
pub(crate) fn free_port() -> Result<SocketAddrV4, BenchError> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(BenchError::system("find a free port"))?;
    let port = listener
        .local_addr()
        .map_err(BenchError::system("getsockname"))?
        .port();
    Ok(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
}

fn write(path: &Path, text: &str) -> Result<(), BenchError> {
    fs::write(path, text).map_err(BenchError::file("write", path))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::server::Side;

    fn files(program: &str, tracing: Tracing, dir: &Path) -> (String, Option<String>) {
        let ini = Ini {
            path: dir.join("php.ini"),
        };
        let spec = Spec {
            side: Side::Candidate,
            program: Path::new(program),
            php: Path::new("/usr/sbin/php-fpm8.2"),
            ini: &ini,
            dir,
            scripts: dir,
            tcp: false,
            workers: NonZeroU32::new(3).unwrap(),
            tracing,
            slow_after_s: Some(1),
            hold: true,
            more: crate::server::More {
                pool: "access.format = \"%s\"\n",
                overlay: "",
            },
            ebpf: Ebpf::Off,
        };
        let files = Files::write(&spec, Some(([127, 0, 0, 1], 4318).into())).unwrap();
        let overlay = files
            .overlay
            .as_ref()
            .map(|path| fs::read_to_string(path).unwrap());
        (fs::read_to_string(&files.conf).unwrap(), overlay)
    }

    #[test]
    fn both_programs_read_the_same_php_fpm_conf() {
        let dir = tempfile::tempdir().unwrap();
        let (stock, none) = files("/usr/sbin/php-fpm8.2", Tracing::Off, dir.path());
        let (ours, overlay) = files("target/release/glasspool", Tracing::OnePercent, dir.path());
        assert_eq!((&stock, none), (&ours, None));
        assert!(stock.contains("pm.max_children = 3\n") && stock.contains("request_slowlog_timeout = 1s\n"));
        let overlay = overlay.unwrap();
        assert!(overlay.contains("binary = \"/usr/sbin/php-fpm8.2\"") && overlay.contains("ratio = 0.01"));
        assert!(overlay.contains("[ebpf]\nmode = \"off\"\n"), "{overlay}");
        assert!(overlay.ends_with("[slow]\nstop = \"always\"\n"), "{overlay}");
        assert!(overlay.contains("endpoint = \"http://127.0.0.1:4318\""));
    }
}
