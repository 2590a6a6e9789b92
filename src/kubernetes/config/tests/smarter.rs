//! The file of smarter-device-manager.

use super::*;
use crate::kubernetes::config::definition::MAX_UNITS;

/// smarter-device-manager's default, as shipped (compat.md 3).
const SMARTER_DEFAULT: &str = "\
- devicematch: ^snd$
  nummaxdevices: 20
- devicematch: ^gpiomem$
  nummaxdevices: 40
- devicematch: ^gpiochip[0-9]*$
  nummaxdevices: 20
- devicematch: ^hci[0-9]*$
  nummaxdevices: 1
- devicematch: ^i2c-[0-9]*$
  nummaxdevices: 1
- devicematch: ^rtc0$
  nummaxdevices: 20
- devicematch: ^video[0-9]*$
  nummaxdevices: 20
- devicematch: ^vchiq$
  nummaxdevices: 20
- devicematch: ^vcsm.*$
  nummaxdevices: 20
- devicematch: ^ttyUSB[0-9]*$
  nummaxdevices: 1
- devicematch: ^ttyACM[0-9]*$
  nummaxdevices: 1
- devicematch: ^ttyTHS[0-9]*$
  nummaxdevices: 1
- devicematch: ^ttyS[0-9]*$
  nummaxdevices: 1
- devicematch: nvidia-gpu
  nummaxdevices: 10
";

#[test]
fn smarters_own_file_is_accepted_unchanged() {
    let read = smarter(SMARTER_DEFAULT).unwrap();
    assert_eq!(read.len(), 14);
    let Definition::Pattern { pattern, count: 20 } = &read[0] else {
        panic!("{:?}", read[0])
    };
    let matched = ["snd", "/snd", "snd0", ""].map(|name| pattern.is_match(name));
    assert_eq!(matched, [true, false, false, false]);
    assert!(matches!(&read[13], Definition::NvidiaGpu { count: 10 }));
}

#[test]
fn smarters_expressions_are_not_anchored_and_keys_may_be_missing_or_unknown() {
    let read = smarter("- {devicematch: 'tty(USB|ACM)[[:digit:]]+', something: else}\n").unwrap();
    let [Definition::Pattern { pattern, count: 0 }] = &read[..] else {
        panic!("{read:?}")
    };
    assert!(pattern.is_match("x/ttyACM12y"));
    assert!(smarter("").unwrap().is_empty());
    let error = smarter("- devicematch: ^a$\n- devicematch: 'a('\n").unwrap_err();
    assert!(
        error.starts_with("conf.yaml, entry 2: devicematch \"a(\" is not a regular expression"),
        "{error}"
    );
}

/// Case README 14. Case README 15.
#[test]
fn smarters_large_counts_and_its_syntax_are_accepted() {
    let texts = Texts {
        smarter: Some((
            "conf.yaml".into(),
            "- devicematch: ^(ttyACM|ttyUSB)[0-9]+$\n  nummaxdevices: 10000\n- devicematch: ^[[:alpha:]]+$\n  nummaxdevices: 1\n\
             - devicematch: \\Qusb-1\\E\n  nummaxdevices: 1\n- devicematch: ^\\p{L}+$\n  nummaxdevices: 5000000000\n"
                .to_owned(),
        )),
        ..Texts::default()
    };
    let read = read(&texts, &classes()).unwrap();
    let shown = read.definitions.iter().map(|definition| match definition {
        Definition::Pattern { pattern, count } => (
            *count,
            ["ttyUSB12", "null", "x/usb-1.2", "größe"].map(|path| pattern.is_match(path)),
        ),
        other => panic!("{other:?}"),
    });
    assert_eq!(
        shown.collect::<Vec<_>>(),
        [
            (10000, [true, false, false, false]),
            (1, [false, true, false, false]),
            (1, [false, false, true, false]),
            (MAX_UNITS, [false, true, false, true]),
        ]
    );
    assert_eq!(read.notes.len(), 1, "{:?}", read.notes);
    assert!(
        read.notes[0].contains("entry 4: nummaxdevices 5000000000"),
        "{:?}",
        read.notes
    );
    let error = smarter("- devicematch: 'a(?=b)'").unwrap_err();
    assert!(
        error.contains("\"a(?=b)\"") && error.contains("(?=b looks around"),
        "{error}"
    );
}
