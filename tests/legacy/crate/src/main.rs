//! Asks iqdb 1.x what it makes of a database, and has it write some.
//!
//!     iqdb1 open PATH DIM METRIC K    stdin: lines "id u64:N", "id hex:BYTES", "query BITS,BITS,..."
//!     iqdb1 make CASE PATH            one of the cases below, left as a crash after the last write would leave it

use iqdb::{Compression, DistanceMetric, Iqdb, IqdbConfig, Metadata, Value, Vector, VectorId};
use std::io::Read;
fn metric(s: &str) -> DistanceMetric {
    match s {
        "cosine" => DistanceMetric::Cosine,
        "dot" => DistanceMetric::DotProduct,
        "euclidean" => DistanceMetric::Euclidean,
        "manhattan" => DistanceMetric::Manhattan,
        _ => DistanceMetric::Hamming,
    }
}
fn unhex(s: &str) -> Vec<u8> {
    (0..s.len() / 2)
        .map(|i| u8::from_str_radix(&s[2 * i..2 * i + 2], 16).unwrap())
        .collect()
}
fn id(s: &str) -> VectorId {
    if let Some(n) = s.strip_prefix("u64:") {
        VectorId::from(n.parse::<u64>().unwrap())
    } else {
        VectorId::try_from(unhex(&s[4..])).unwrap()
    }
}
fn show(i: &VectorId) -> String {
    match i {
        VectorId::U64(n) => format!("u64:{n}"),
        VectorId::Bytes(b) => format!(
            "hex:{}",
            b.iter().map(|x| format!("{x:02x}")).collect::<String>()
        ),
    }
}
fn main() {
    let a: Vec<String> = std::env::args().collect();
    if a[1] == "make" {
        make(&a[2], &a[3]);
        return;
    }
    let dim: usize = a[3].parse().unwrap();
    let db = match Iqdb::open(&a[2], dim, metric(&a[4])) {
        Ok(d) => d,
        Err(e) => {
            println!("error {e:?}");
            return;
        }
    };
    println!("len {}", db.len());
    let mut s = String::new();
    std::io::stdin().read_to_string(&mut s).unwrap();
    for l in s.lines() {
        if let Some(r) = l.strip_prefix("id ") {
            match db.get(&id(r)).unwrap() {
                None => println!("row {r} absent"),
                Some((v, m)) => {
                    let vb: Vec<String> = v
                        .as_slice()
                        .iter()
                        .map(|x| format!("{:08x}", x.to_bits()))
                        .collect();
                    let mm = match m {
                        None => "none".to_string(),
                        Some(m) => m
                            .iter()
                            .map(|(k, v)| {
                                let kk: String = k.bytes().map(|x| format!("{x:02x}")).collect();
                                let vv = match v {
                                    Value::String(s) => format!(
                                        "s{}",
                                        s.bytes().map(|x| format!("{x:02x}")).collect::<String>()
                                    ),
                                    Value::Int(i) => format!("i{i}"),
                                    Value::Float(f) => format!("f{:016x}", f.to_bits()),
                                    Value::Bool(b) => format!("b{b}"),
                                    Value::Null => "n".to_string(),
                                };
                                format!("{kk}={vv}")
                            })
                            .collect::<Vec<_>>()
                            .join(";"),
                    };
                    println!("row {r} {} meta:{mm}", vb.join(","));
                }
            }
        } else if let Some(q) = l.strip_prefix("query ") {
            let v: Vec<f32> = q
                .split(',')
                .map(|x| f32::from_bits(u32::from_str_radix(x, 16).unwrap()))
                .collect();
            match db.search(&Vector::new(v).unwrap(), a[5].parse().unwrap()) {
                Ok(h) => println!(
                    "hits {}",
                    h.iter()
                        .map(|h| format!("{}@{}", show(&h.id), h.distance))
                        .collect::<Vec<_>>()
                        .join(" ")
                ),
                Err(e) => println!("search error {e:?}"),
            }
        }
    }
}

fn vector(seed: u64) -> Vector {
    let mut x = seed.wrapping_mul(0x9E3779B97F4A7C15) ^ 0xD1B54A32D192ED03;
    Vector::new(
        (0..4)
            .map(|_| {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                ((x >> 40) as f32) / ((1u32 << 23) as f32) - 1.0
            })
            .collect(),
    )
    .unwrap()
}
fn meta(i: u64) -> Option<Metadata> {
    match i % 4 {
        0 => None,
        1 => Some(Metadata::default()),
        _ => Some(
            [
                ("n".to_string(), Value::Int(i as i64)),
                ("tag".to_string(), Value::String(format!("tag-{}", i % 3))),
                ("w".to_string(), Value::Float(i as f64 / 8.0)),
                ("yes".to_string(), Value::Bool(i % 2 == 0)),
                ("z\u{e9}".to_string(), Value::Null),
            ]
            .into_iter()
            .collect(),
        ),
    }
}
fn name(i: u64) -> VectorId {
    if i % 3 == 2 {
        VectorId::try_from(format!("row-{i}").into_bytes()).unwrap()
    } else {
        VectorId::from(i * 1_000_003)
    }
}
fn config(c: &str) -> IqdbConfig {
    let m = if c.starts_with("dot") {
        DistanceMetric::DotProduct
    } else if c.starts_with("manhattan") {
        DistanceMetric::Manhattan
    } else if c.starts_with("hamming") {
        DistanceMetric::Hamming
    } else if c.starts_with("cosine") {
        DistanceMetric::Cosine
    } else {
        DistanceMetric::Euclidean
    };
    let mut f = IqdbConfig::new(4, m);
    if c.ends_with("zstd") {
        f = f.compression(Compression::Zstd { level: 3 })
    }
    if c.ends_with("zstd22") {
        f = f.compression(Compression::Zstd { level: 22 })
    }
    if c.ends_with("lz4") {
        f = f.compression(Compression::Lz4)
    }
    f
}
fn fill(db: &Iqdb, from: u64, to: u64) {
    for i in from..to {
        db.upsert(name(i), vector(i), meta(i)).unwrap()
    }
}
fn make(c: &str, p: &str) {
    let wal = format!("{p}.wal");
    let db = Iqdb::open_with(p, config(c)).unwrap();
    fill(&db, 0, 8);
    db.flush().unwrap();
    if c.ends_with("-log") {
        fill(&db, 8, 12);
        db.delete(&name(1)).unwrap();
        db.upsert(name(2), vector(102), meta(3)).unwrap();
        db.delete(&name(9)).unwrap();
        db.upsert(name(1), vector(101), None).unwrap();
        db.delete(&name(77)).unwrap();
    }
    if c == "way-1" {
        // a torn tail, reopened and appended to
        fill(&db, 8, 11);
        drop(db);
        let n = std::fs::metadata(&wal).unwrap().len();
        std::fs::OpenOptions::new()
            .write(true)
            .open(&wal)
            .unwrap()
            .set_len(n - 7)
            .unwrap();
        let db = Iqdb::open_with(p, config(c)).unwrap();
        fill(&db, 11, 13);
        return;
    }
    if c == "way-2" {
        // the log was cut to nothing by a crash while it was reset, then written to
        drop(db);
        std::fs::OpenOptions::new()
            .write(true)
            .open(&wal)
            .unwrap()
            .set_len(0)
            .unwrap();
        let db = Iqdb::open_with(p, config(c)).unwrap();
        fill(&db, 8, 10);
        return;
    }
    if c == "way-11" {
        // one bit of the first frame
        fill(&db, 8, 16);
        drop(db);
        let mut b = std::fs::read(&wal).unwrap();
        b[30] ^= 1;
        std::fs::write(&wal, b).unwrap();
        return;
    }
    if c == "way-22" {
        db.upsert(
            VectorId::Bytes(Vec::new().into_boxed_slice()),
            vector(8),
            None,
        )
        .unwrap();
        fill(&db, 9, 10);
        return;
    }
    if c == "way-5" {
        // another database's log beside this snapshot
        drop(db);
        let q = format!("{p}.other");
        let other = Iqdb::open_with(&q, IqdbConfig::new(6, DistanceMetric::Euclidean)).unwrap();
        other
            .upsert(VectorId::from(5), Vector::new(vec![1.0; 6]).unwrap(), None)
            .unwrap();
        drop(other);
        std::fs::rename(format!("{q}.wal"), &wal).unwrap();
        std::fs::remove_file(&q).unwrap();
        return;
    }
    if c == "way-16" {
        drop(db);
        let mut b = std::fs::read(p).unwrap(); // a trailing byte with a checksum that covers it
        b.push(7);
        let crc = crc32(&b[50..]);
        b[46..50].copy_from_slice(&crc.to_le_bytes());
        std::fs::write(p, b).unwrap();
        return;
    }
}
fn crc32(b: &[u8]) -> u32 {
    let mut c = !0u32;
    for x in b {
        c ^= *x as u32;
        for _ in 0..8 {
            c = if c & 1 == 1 {
                (c >> 1) ^ 0xEDB88320
            } else {
                c >> 1
            }
        }
    }
    !c
}
