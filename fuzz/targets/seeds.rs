//! Writes inputs to begin with: `seeds FOLDER` fills one folder a target in FOLDER.
//!
//! In: a folder. Out: a few hundred small files. Invariant: the same files every time.

use std::{fs, io, path::Path};

use trailwarden::demo::corpus::{
    Corpus,
    wrap::{self, Envelopes, Gzip},
};

/// One line of each log, whichever parser it is given to.
const LOG_LINES: [&str; 7] = [
    "2026-03-02 03:04:05 UTC:10.0.0.9(5012):app@orders:[77]:LOG:  connection authorized: user=app database=orders SSL enabled (protocol=TLSv1.3, cipher=TLS_AES_256_GCM_SHA384, bits=256)",
    "2026-03-02 03:04:05 UTC:10.0.0.9(5012):app@orders:[77]:LOG:  AUDIT: SESSION,1,1,ROLE,GRANT,,,\"GRANT ALL ON ALL TABLES IN SCHEMA public TO app\",<none>",
    "2026-03-02 03:04:05 UTC:[local]:app@orders:[78]:ERROR:  syntax error at or near \"x\" at character 8\n2026-03-02 03:04:05 UTC:[local]:app@orders:[78]:STATEMENT:  select x x x\n\tfrom y",
    "20260302 03:04:05,ip-10-0-0-1,app,10.0.0.9,5,6,QUERY,orders,'DROP TABLE \\'a\\', b',0",
    "2026-03-02T03:04:05.123456Z 12 [Warning] [MY-010055] [Server] Access denied for user 'root'@'203.0.113.9' (using password: YES)",
    "2026-03-02T03:04:05.123456Z\t   12 Connect\tapp@10.0.0.9 on orders using TCP/IP\n\t\t   12 Query\tselect 1",
    "# Time: 2026-03-02T03:04:05.123456Z\n# User@Host: app[app] @  [10.0.0.9]  Id:    12\n# Query_time: 2.000123  Lock_time: 0.000001 Rows_sent: 1  Rows_examined: 9\nSET timestamp=1772420645;\nselect sleep(2);",
];

fn write(folder: &Path, name: &str, index: usize, bytes: &[u8]) -> io::Result<()> {
    let folder = folder.join(name);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(format!("seed-{index:04}")), bytes)
}

fn main() -> io::Result<()> {
    let folder = std::env::args().nth(1).expect("usage: seeds FOLDER");
    let folder = Path::new(&folder);
    let mut corpus = Corpus::new(1);
    for index in 0..200 {
        let mut event = Vec::new();
        corpus.next_event(&mut event);
        write(folder, "event", index, &event)?;
        write(folder, "record", index, &[&[index as u8 % 4], event.as_slice()].concat())?;
    }
    let mut envelopes = Envelopes::new(Corpus::new(2)).with_sizes(1..=3);
    for index in 200..240 {
        let mut record = vec![0];
        envelopes.next_record(&mut record);
        write(folder, "record", index, &record)?;
    }
    write(folder, "record", 240, &[&[0], wrap::s3_file(&mut Corpus::new(3), 3, &mut Gzip::default()).as_slice()].concat())?;
    for (index, line) in LOG_LINES.iter().enumerate() {
        for which in 0..=u8::try_from(LOG_LINES.len()).expect("few lines") {
            write(folder, "logs", index * 100 + usize::from(which), &[&[which], line.as_bytes(), b"\n", line.as_bytes()].concat())?;
        }
    }
    let detectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("detectors");
    let mut folders = vec![detectors];
    let mut index = 0;
    while let Some(folder_of_rules) = folders.pop() {
        for entry in fs::read_dir(folder_of_rules)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "yml") {
                write(folder, "rules", index, &fs::read(path)?)?;
                index += 1;
            }
        }
    }
    Ok(())
}
