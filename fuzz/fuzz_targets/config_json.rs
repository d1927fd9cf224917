//! Any bytes as a configuration: no panic, and every accessor answers for every field.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rachis_loader::{Config, ConfigSource, Error};

fuzz_target!(|bytes: &[u8]| {
    let config = match Config::parse("config.json", bytes) {
        Ok(config) => config,
        Err(error) => return check(&error),
    };
    match config.source() {
        ConfigSource::HuggingFace { model_type } => assert!(model_type.len() <= bytes.len()),
        ConfigSource::Keras { class_name } => assert!(!class_name.contains('>')),
    }
    config.dtype().err().iter().for_each(check);
    for name in config.fields().map(|(name, _)| name).chain(["absent"]) {
        let present = config.value(name).is_some();
        agree(config.usize(name), config.opt_usize(name), present);
        agree(config.f32(name), config.opt_f32(name), present);
        agree(config.f64(name), config.opt_f64(name), present);
        agree(config.bool(name), config.opt_bool(name), present);
        agree(config.str(name), config.opt_str(name), present);
        config.opt_function(name).err().iter().for_each(check);
        assert!(config.f32(name).map_or(true, f32::is_finite));
        assert!(config.f64(name).map_or(true, f64::is_finite));
    }
});

/// A required field is the optional one when that is there, and an error when not.
fn agree<T: PartialEq + std::fmt::Debug>(
    required: Result<T, Error>,
    optional: Result<Option<T>, Error>,
    present: bool,
) {
    required.as_ref().err().iter().for_each(|error| check(error));
    match optional {
        Ok(Some(value)) => assert_eq!(required.ok(), Some(value)),
        Ok(None) => assert!(required.is_err() && !present),
        Err(_) => assert!(required.is_err() && present),
    }
}

fn check(error: &Error) {
    let message = error.to_string();
    assert!(!message.contains('\n') && message.len() < 4000, "{message:?}");
}
