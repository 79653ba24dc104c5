//! A list of allowed secrets: read or refused with its line, what is read of it is what its lines say, and nothing is allowed
//! whose path leads elsewhere.

#![no_main]

use baton_core::access::AllowedSecrets;
use baton_core::ids::ServiceName;
use baton_core::run::secrets::Reference;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let text = &*String::from_utf8_lossy(text);
    let list = match AllowedSecrets::parse(text) {
        Ok(list) => list,
        Err(error) => {
            assert!((1..=text.split('\n').count()).contains(&(error.line as usize)), "{error:?}");
            return;
        }
    };
    let lines: Vec<&str> =
        text.lines().skip(1).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert_eq!(list.lines().iter().map(ToString::to_string).collect::<Vec<_>>(), lines);
    for line in lines {
        let mut words = line.split(' ');
        let services = words.next().into_iter().flat_map(|word| word.split(','));
        let services: Vec<ServiceName> = services.filter_map(|name| name.parse().ok()).collect();
        for reference in words.filter_map(|word| word.parse::<Reference>().ok()) {
            for service in &services {
                // One with a star in its name is the beginning of others.
                let is_plain = !reference.to_string().ends_with('*');
                assert!(!is_plain || list.check(service, &reference).is_ok(), "{service} {reference}");
                let out = format!("{reference}/../x").parse::<Reference>();
                // Behind a # it is a member's name, and what is too long is no reference.
                assert!(
                    out.is_err()
                        || out.is_ok_and(
                            |out| out.to_string().contains('#') || list.check(service, &out).is_err()
                        )
                );
            }
        }
    }
});
