use std::os::unix::fs::symlink;

use super::*;

/// A `/proc` made by a test.
struct FakeProc {
    directory: tempfile::TempDir,
}

impl FakeProc {
    fn new() -> FakeProc {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("uptime"), "1 1").unwrap();
        FakeProc { directory }
    }

    fn process(&self, pid: i32, title: &str, exe: &str, maps: &str) {
        let own = self.directory.path().join(pid.to_string());
        fs::create_dir(&own).unwrap();
        fs::write(own.join("cmdline"), title.replace(' ', "\0")).unwrap();
        fs::write(own.join("maps"), maps).unwrap();
        if !exe.is_empty() {
            symlink(exe, own.join("exe")).unwrap();
        }
    }

    /// A process with a title, which stands as one argument and keeps the old length.
    fn titled(&self, pid: i32, title: &str, exe: &str) {
        self.process(pid, "", exe, "");
        let own = self.directory.path().join(pid.to_string());
        fs::write(own.join("cmdline"), format!("{title}   \0\0\0")).unwrap();
    }

    fn find(&self, selectors: &[&str]) -> (Vec<(i32, Option<String>)>, Vec<String>) {
        let selectors: Vec<Selector> = selectors.iter().map(|text| text.parse().unwrap()).collect();
        let (found, errors) = Processes::at(self.directory.path()).find(&selectors);
        let found = found.into_iter().map(|one| (one.pid.0, one.pool)).collect();
        (found, errors.iter().map(ToString::to_string).collect())
    }
}

fn fleet() -> FakeProc {
    let proc = FakeProc::new();
    proc.titled(
        10,
        "php-fpm: master process (/etc/php-fpm.conf)",
        "/usr/sbin/php-fpm8.2",
    );
    proc.titled(11, "php-fpm: pool www", "/usr/sbin/php-fpm8.2");
    proc.titled(12, "php-fpm: pool www", "/usr/sbin/php-fpm8.2");
    proc.titled(13, "php-fpm: pool www2", "/usr/sbin/php-fpm8.2");
    proc.titled(
        14,
        "glasspool: engine (/usr/sbin/php-fpm8.2)",
        "/usr/sbin/php-fpm8.2",
    );
    proc.process(20, "php script.php", "/usr/bin/php8.2", "");
    let apache = "7f00-7f01 r-xp 00000000 08:01 5   /usr/lib/apache2/modules/libphp8.2.so\n";
    proc.process(21, "/usr/sbin/apache2", "/usr/sbin/apache2", apache);
    let php_folder = "7f00-7f01 r-xp 00000000 08:01 5   /opt/php/libc.so.6\n";
    proc.process(22, "/opt/php/nginx", "/opt/php/nginx", php_folder);
    // A kernel thread: no command line and no program.
    proc.process(2, "", "", "");
    proc
}

#[test]
fn a_pool_is_its_workers_and_nobody_elses() {
    let www = Some("www".to_owned());
    assert_eq!(
        fleet().find(&["www"]),
        (vec![(11, www.clone()), (12, www)], vec![])
    );
}

#[test]
fn all_is_what_is_called_after_php_or_maps_it_but_no_manager() {
    let (found, errors) = fleet().find(&["all"]);
    let pids: Vec<i32> = found.iter().map(|(pid, _)| *pid).collect();
    assert_eq!((pids, errors), (vec![11, 12, 13, 20, 21], vec![]));
}

#[test]
fn a_process_that_is_meant_twice_is_found_once_and_as_asked_for() {
    let proc = fleet();
    let selectors = [
        Selector::All,
        Selector::Pid(Pid(11)),
        Selector::Pool("www".into()),
    ];
    let (found, errors) = Processes::at(proc.directory.path()).find(&selectors);
    assert!(errors.is_empty());
    let twice = found.iter().filter(|one| one.pid == Pid(11));
    assert_eq!(twice.map(|one| one.asked_for).collect::<Vec<_>>(), [true]);
}

#[test]
fn what_is_not_there_is_said_with_what_is() {
    let (found, errors) = fleet().find(&["ww", "99", "13"]);
    assert_eq!(found, [(13, Some("www2".to_owned()))]);
    assert_eq!(
        errors,
        [
            "no process has the title `php-fpm: pool ww` (pools here: www, www2)",
            "cannot look into process 99: there is no such process",
        ]
    );
    let (_, errors) = FakeProc::new().find(&["ww", "all"]);
    assert_eq!(
        errors,
        [
            "no process has the title `php-fpm: pool ww` (and no pool runs here)",
            "no process runs PHP, as far as can be seen from here",
        ]
    );
}

#[test]
fn a_missing_proc_is_one_error() {
    let missing = Processes::at("/nonexistent/proc");
    let (found, errors) = missing.find(&[Selector::All, Selector::Pool("www".into())]);
    assert_eq!((found.len(), errors.len()), (0, 1));
    assert_eq!(
        errors[0].to_string(),
        "cannot list the processes in /nonexistent/proc"
    );
}

#[test]
fn selectors_are_read_as_people_mean_them() {
    let read = |text: &str| text.parse::<Selector>().unwrap();
    assert_eq!(read("4182"), Selector::Pid(Pid(4182)));
    assert_eq!(read("all"), Selector::All);
    assert_eq!(read("www"), Selector::Pool("www".into()));
    assert_eq!(read("pool:all"), Selector::Pool("all".into()));
    assert_eq!(read("pool:12"), Selector::Pool("12".into()));
    assert_eq!(read("0"), Selector::Pool("0".into()));
    assert_eq!(read("99999999999"), Selector::Pool("99999999999".into()));
}

#[test]
fn this_machines_list_has_this_very_process() {
    let own = i32::try_from(std::process::id()).unwrap();
    let (found, errors) = Processes::here().find(&[Selector::Pid(Pid(own))]);
    assert_eq!((found.len(), errors.len()), (1, 0));
}
