//! Each line as stock php-fpm 8.2 takes it.

use super::*;

fn asked(line: &[&str]) -> Asked {
    let name = OsString::from("php-fpm8.2");
    parse(
        &std::iter::once(name)
            .chain(line.iter().map(OsString::from))
            .collect::<Vec<_>>(),
    )
}

fn flags(line: &[&str]) -> Flags {
    match asked(line) {
        Asked::Fpm(flags) => flags,
        other => panic!("{line:?}: {other:?}"),
    }
}

/// Each as stock php-fpm 8.2 takes it.
#[test]
fn command_lines_that_make_no_sense() {
    for line in [
        &["-x"][..],
        &["-xv"],
        &["-n=1", "-v"],
        &["-n-v"],
        &["-tt=1"],
        &["-V"],
        &["--Version"],
        &["--fpm", "-t"],
        &["--memory-limit=1G"],
        &["-y"],
        &["-d"],
        &["-g"],
        &["-Rty"],
        &["--fpm-config"],
        &["--fpm-config=", "-t"],
        &["--define"],
        &["-i", "-x"],
        &["-i", "-y"],
        &["-"],
        &[""],
        &["foo"],
        &["foo", "-v"],
        &["-tt", "foo"],
        &["--", "-v"],
        &["-t", "--", "-R"],
    ] {
        assert_eq!(asked(line), Asked::Wrong, "{line:?}");
    }
}

#[test]
fn some_flags_act_at_once_and_info_waits() {
    let php = PhpFlags::default;
    for (line, expected) in [
        (&["-h"][..], Asked::Help),
        (&["-?"], Asked::Help),
        (&["--usage"], Asked::Help),
        (&["--help=x"], Asked::Help),
        (&["-i", "-h"], Asked::Help),
        (&["-v"], Asked::About(About::Version, php())),
        (&["-v=1"], Asked::About(About::Version, php())),
        (&["-vx"], Asked::About(About::Version, php())),
        (&["-v", "foo"], Asked::About(About::Version, php())),
        (&["-vn"], Asked::About(About::Version, php())),
        (&["--version=1"], Asked::About(About::Version, php())),
        (&["--version", "1"], Asked::About(About::Version, php())),
        (&["-O", "-v", "-"], Asked::About(About::Version, php())),
        (&["-m", "foo"], Asked::About(About::Modules, php())),
        (&["-i", "-m"], Asked::About(About::Modules, php())),
        (&["-i", "foo"], Asked::About(About::Info, php())),
        (&["-i", "-t"], Asked::About(About::Info, php())),
        (&["--info=3"], Asked::About(About::Info, php())),
    ] {
        assert_eq!(asked(line), expected, "{line:?}");
    }
    let with = |no_ini, define: &[&str]| PhpFlags {
        no_ini,
        define: define.iter().map(|text| (*text).to_owned()).collect(),
        ..PhpFlags::default()
    };
    assert_eq!(asked(&["-nv"]), Asked::About(About::Version, with(true, &[])));
    let line = ["-dmemory-limit=1G", "-v", "-da=b"];
    assert_eq!(
        asked(&line),
        Asked::About(About::Version, with(false, &["memory-limit=1G"]))
    );
    assert_eq!(
        asked(&["-i", "-da"]),
        Asked::About(About::Info, with(false, &["a"]))
    );
}

#[test]
fn values_are_attached_or_follow() {
    let conf = |line: &[&str]| flags(line).fpm_config.expect("given");
    for line in [
        &["-y/a.conf"][..],
        &["-y", "/a.conf"],
        &["-y=/a.conf"],
        &["-ty/a.conf"],
        &["-ty", "/a.conf"],
        &["-tny=/a.conf"],
        &["--fpm-config", "/a.conf"],
        &["--fpm-config=/a.conf"],
        &["-y/b.conf", "-y/a.conf"],
    ] {
        assert_eq!(conf(line), PathBuf::from("/a.conf"), "{line:?}");
    }
    // Whatever follows is the value.
    assert_eq!(conf(&["-y", "-t"]), PathBuf::from("-t"));
    assert_eq!(flags(&["--define", "-v"]).php.define, ["-v"]);
    assert_eq!(flags(&["-tdfoo"]).php.define, ["foo"]);
    for line in [&["-y", ""][..], &["-y="]] {
        assert_eq!(flags(line).fpm_config, None, "{line:?}");
    }
}

#[test]
fn every_flag_is_noted() {
    let line = "-c /ini -n -d a=b -d c -e --config g.toml -p /p -g /pid -tt -R -D -F -O --";
    let expected = Flags {
        called_as: "php-fpm8.2".into(),
        php: PhpFlags {
            ini: Some("/ini".into()),
            no_ini: true,
            extended_info: true,
            define: vec!["a=b".to_owned(), "c".to_owned()],
        },
        fpm_config: None,
        overlay: Some("g.toml".into()),
        prefix: Some("/p".into()),
        pid: Some("/pid".into()),
        tests: 2,
        allow_root: true,
        daemonize: Some(false),
        force_stderr: true,
    };
    assert_eq!(flags(&line.split(' ').collect::<Vec<_>>()), expected);
    assert_eq!(flags(&["--test=1", "-F", "-D"]).daemonize, Some(true));
    assert_eq!(parse(&[]), Asked::Fpm(Flags::default()));
    assert!(matches!(asked(&["--"]), Asked::Fpm(_)));
    let define = OsString::from_vec(b"-d\xff".to_vec());
    assert_eq!(parse(&["php-fpm".into(), define]), Asked::Wrong);
}

#[test]
fn our_own_command_line_is_told_apart() {
    let is = |argument: &str| is_php_fpms(OsStr::new(argument));
    for fpms in ["-v", "-tt", "-y", "-y/a", "-F", "--fpm-config=x", "--test", "-nv"] {
        assert!(is(fpms), "{fpms}");
    }
    for ours in [
        "-V",
        "--version",
        "--help",
        "-h",
        "run",
        "serve",
        "",
        "-",
        "--",
        "--slow",
        "y",
    ] {
        assert!(!is(ours), "{ours}");
    }
}

proptest::proptest! {
    #[test]
    fn no_command_line_is_too_odd(line: Vec<Vec<u8>>, flags: Vec<u8>) {
        let line: Vec<OsString> = line.into_iter().map(OsString::from_vec).collect();
        parse(&line);
        parse(&["php-fpm".into(), OsString::from_vec([b"-".to_vec(), flags].concat())]);
    }
}
