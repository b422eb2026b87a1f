//! A whole pool that waits for one database.

use super::stand::{Site, dump};
use crate::database::Database;
use crate::harness::{PATIENCE, skipped};

const WORKERS: usize = 20;

#[test]
fn twenty_workers_of_a_stock_pool_stuck_on_one_database_are_one_group() {
    let database = match Database::start() {
        Ok(database) => database,
        Err(why) => return skipped(&format!("looks: {why}")),
    };
    let port = database.port;
    let site = Site::new("crowd", WORKERS, "");
    site.write(
        "orders.php",
        &format!(
            "<?php\nclass Repo {{\n    public function __construct(private PDO $db) {{}}\n    \
             public function open(): array {{\n        \
             return $this->db->query('SELECT SLEEP(300)')->fetchAll();\n    }}\n}}\n\
             $repo = new Repo(new PDO('mysql:host=127.0.0.1;port={port}', 'root', ''));\n$repo->open();\n"
        ),
    );
    let mut stand = site.stock(&[]);
    for _ in 0..WORKERS {
        stand.send("orders.php");
    }
    let script = stand.path("orders.php").display().to_string();
    let head = format!("{WORKERS} processes of pool {}, PHP 8.2.", stand.pool);
    let wait = format!(" in poll on tcp 127.0.0.1:{port}");
    let frames = [
        "  #0 PDO->query()".to_owned(),
        format!("  #1 Repo->open() {script}:5"),
        format!("  #2 {{main}} {script}:9"),
    ];
    let end = std::time::Instant::now() + PATIENCE;
    loop {
        // Whatever else runs PHP here is listed, too, and may not be readable.
        let dumped = dump(&[], &["all"]);
        let text = String::from_utf8(dumped.stdout).expect("is text");
        let lines: Vec<&str> = text.lines().collect();
        let group = lines.iter().position(|line| line.starts_with(&head));
        let group = group.and_then(|at| lines.get(at..at + 6));
        if let Some([head, pids, waits, stack @ ..]) = group {
            assert!(head.contains(", waiting: GET /orders"), "{text}");
            assert_eq!(pids.split(", ").count(), WORKERS, "{text}");
            if waits.ends_with(&wait) {
                assert_eq!(stack, frames, "{text}");
                assert_eq!(text.matches(&stand.pool).count(), 1, "one group only: {text}");
                return;
            }
        }
        // Some are still on their way.
        assert!(
            std::time::Instant::now() < end,
            "no group {head:?} with {wait:?} in {text}"
        );
    }
}
