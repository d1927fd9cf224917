//! Loading copies no weight: the tests count allocations and compare addresses.

mod common;

use common::{count, fixture, one_tensor, preset, specimens};
use rachis_loader::{Access, Data, Preset, Tensor};

fn address(tensor: &Tensor) -> usize {
    tensor.bytes().as_ptr().addr()
}

#[test]
fn mapping_allocates_far_less_than_the_file() {
    const LEN: usize = 2 << 20;
    let file = one_tensor("weight", &vec![0.5; LEN]);
    let dir = preset(&[("model.safetensors", &file)]);

    let (mapped, allocated) = count(|| Preset::open(dir.path(), Access::Map).unwrap());
    assert!(allocated.total < 64 << 10, "{allocated:?} for a file of {} bytes", file.len());
    assert_eq!((mapped.bytes_mapped(), mapped.bytes_copied()), (file.len(), 0));

    let tensor = mapped.require("weight").unwrap().clone();
    let (data, allocated) = count(|| match tensor.data() {
        Data::F32(data) => data,
        other => panic!("{other:?}"),
    });
    assert_eq!((data.len(), data.first(), data.last()), (LEN, Some(&0.5), Some(&0.5)));
    assert_eq!(allocated.total, 0, "data() is a cast");

    let (clone, allocated) = count(|| tensor.clone());
    assert_eq!(allocated.total, 0, "a clone counts references");
    drop((mapped, tensor));
    assert_eq!(clone.bytes().len(), 4 * LEN, "a tensor outlives its preset");

    let (read, allocated) = count(|| Preset::open(dir.path(), Access::Read).unwrap());
    assert!(allocated.total < file.len() + (64 << 10), "{allocated:?}: the file once, and nothing else");
    assert_eq!((read.bytes_mapped(), read.bytes_copied()), (0, 0));
    let tensor = read.require("weight").unwrap();
    assert!((address(tensor) - tensor.file_offset().unwrap()).is_multiple_of(64));
}

/// Every tensor lies at its offset in the map of its file.
#[test]
fn tensors_point_into_the_map() {
    for name in
        ["bert_tanh/hf", "bert_tanh/hf_bare", "bert_tanh/hf_f16", "bert_tanh/hf_sharded", "bert_gelu/hf_bf16"]
    {
        let preset = Preset::open(fixture(name), Access::Map).unwrap();
        assert!(!preset.tensors().is_empty() && preset.bytes_copied() == 0);
        for file in preset.files() {
            let of_file = preset.tensors().iter().filter(|tensor| tensor.file() == Some(&file.name));
            let bases: Vec<_> =
                of_file.map(|tensor| address(tensor) - tensor.file_offset().unwrap()).collect();
            let base = *bases.first().unwrap();
            assert!(bases.iter().all(|other| *other == base), "{name}: one base for all tensors of {file:?}");
            assert!(file.mapped && is_map_of(base, &file.name), "{name}: {file:?} at {base:x}");
        }
    }
}

#[test]
fn misaligned_tensors_are_copied_and_counted() {
    let file = std::fs::read(specimens("safetensors_good").join("misaligned.safetensors")).unwrap();
    let dir = preset(&[("model.safetensors", &file)]);
    for access in [Access::Map, Access::Read] {
        let preset = Preset::open(dir.path(), access).unwrap();
        let [a, b, c] = ["a", "b", "c"].map(|name| preset.require(name).unwrap());
        assert!(matches!(a.data(), Data::F32([1.5, -2.0])), "{:?}", a.data());
        assert!(matches!(b.data(), Data::Bf16([x, y]) if x.to_f32() == 1.0 && y.to_f32() == 2.0));
        assert!(matches!(c.data(), Data::Other(_, b"xyz")), "bytes need no alignment: {:?}", c.data());
        assert_eq!([a, b, c].map(Tensor::copied), [true, true, false]);
        assert_eq!(preset.bytes_copied(), 8 + 4);
        assert!(address(a).is_multiple_of(64) && address(b).is_multiple_of(64));
        let offset = |tensor: &Tensor| (tensor.file().map(str::to_owned), tensor.file_offset());
        assert_eq!(offset(a), (Some("model.safetensors".to_owned()), Some(file.len() - 15)));
    }
}

/// What a file that is refused may cost: 64 MiB and four times its length, eight times for what becomes a tree of values.
#[test]
fn memory_is_bounded_by_the_file() {
    let refuse = |files: &[(&str, &[u8])], part: &str| {
        let dir = preset(files);
        let len: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
        for access in [Access::Map, Access::Read] {
            let (error, allocated) = count(|| Preset::open(dir.path(), access).unwrap_err());
            assert!(error.to_string().contains(part), "{error}");
            assert!(allocated.peak < (56 << 20) + 4 * len, "{part}: {allocated:?}");
        }
    };
    let config = |field: &str| format!("{{\"model_type\":\"bert\",\"x\":{field}}}");
    let list = |item: &str, len: usize| format!("[{}0]", item.repeat(len / item.len()));
    let len = (1 << 20) - 100;
    for item in ["{\"\":0},", "[0],", "[],"] {
        refuse(&[("config.json", config(&list(item, len)).as_bytes())], "more values than");
    }
    refuse(&[("config.json", config(&list("0,", len)).as_bytes())], "no such file");

    let safetensors = |header: &str, data: usize| {
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.bytes());
        file.resize(file.len() + data, 0);
        file
    };
    let shape = "1,".repeat(1 << 19);
    let header = format!("{{\"a\":{{\"dtype\":\"U8\",\"shape\":[{shape}1],\"data_offsets\":[0,1]}}}}");
    refuse(&[("model.safetensors", &safetensors(&header, 1))], "at most 8 dimensions");
    let entry = |i| format!("\"{i}\":{{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}");
    let header = format!("{{{}}}", (0..200_000).map(entry).collect::<Vec<_>>().join(","));
    refuse(&[("model.safetensors", &safetensors(&header, 0))], "more than 100000 tensors");
    let index: String = (0..200_000).map(|i| format!("\"{i}\":\"a.safetensors\",")).collect();
    let index = format!("{{\"weight_map\":{{{index}\"\":\"\"}}}}");
    refuse(&[("model.safetensors.index.json", index.as_bytes())], "more than 100000 entries");

    let entry = |i| format!("\"{i}\":{{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[{i},{}]}}", i + 1);
    let header = format!("{{{}}}", (0..20_000).map(entry).collect::<Vec<_>>().join(","));
    let file = safetensors(&header, 20_000);
    let dir = preset(&[("model.safetensors", &file)]);
    let (opened, allocated) = count(|| Preset::open(dir.path(), Access::Map).unwrap());
    assert_eq!(opened.tensors().len(), 20_000);
    assert!(allocated.peak < 16 * file.len(), "{allocated:?}");
}

/// A file that is to be read into memory has its header checked first: one without a header is not read.
#[test]
fn what_has_no_header_is_not_read() {
    for start in [&[0; 8][..], &[0xff; 8], &(1u64 << 20).to_le_bytes()] {
        let dir = preset(&[("model.safetensors", start)]);
        let file =
            std::fs::OpenOptions::new().write(true).open(dir.path().join("model.safetensors")).unwrap();
        file.set_len(1 << 30).unwrap();
        let (_, allocated) = count(|| Preset::open(dir.path(), Access::Read).unwrap_err());
        assert!(allocated.peak < 4 << 20, "{allocated:?}");
    }
}

/// Whether the system lists a map of a file with this name at address `base`.
#[cfg(target_os = "linux")]
fn is_map_of(base: usize, name: &str) -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().any(|line| line.starts_with(&format!("{base:x}-")) && line.ends_with(name))
}

#[cfg(not(target_os = "linux"))]
fn is_map_of(base: usize, _: &str) -> bool {
    base.is_multiple_of(4096)
}
