//! The kernel's names of nodes, in parts: which number in them counts over the whole host.

use std::path::Path;

use crate::model::device::Device;

/// The kernel's names of disks: a letter for the number.
const LETTERED_DISKS: [&str; 4] = ["sd", "vd", "xvd", "hd"];

/// Names with a digit before their number.
const WITH_DIGIT: [&str; 3] = ["i2c-", "v4l-subdev", "v4l-touch"];

/// The nodes of render devices begin with this number (drivers/gpu/drm/drm_drv.c,
/// drm_minor_alloc).
const FIRST_RENDER_NODE: u64 = 128;

/// The name of a host's node, with the number that counts over the whole host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HostName<'a> {
    pub directory: &'a Path,
    /// Names of one series share their numbers, as all nodes of a sound card do.
    pub series: &'a str,
    before: &'a str,
    pub number: Option<u64>,
    after: &'a str,
    form: NumberForm,
}

/// How a number is written in names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NumberForm {
    Digits,
    /// Digits that begin at [`FIRST_RENDER_NODE`].
    RenderNode,
    /// `a` to `z`, then `aa`.
    Letters,
    /// No digit for the first.
    DigitsAfterFirst,
}

impl<'a> HostName<'a> {
    /// `None` for a device without a node.
    pub(super) fn of(device: &'a Device) -> Option<Self> {
        let path = &device.node.as_ref()?.path;
        let name = path.file_name()?.to_str()?;
        let directory = path.parent().unwrap_or(path);
        let subsystem = device.subsystem.as_deref().unwrap_or_default();
        let (before, number, after, form) = match subsystem {
            // The numbers of bus and device below /dev/bus/usb.
            "usb" => ("usb", name.parse().ok(), "", NumberForm::Digits),
            "block" => disk(name).unwrap_or_else(|| numbered(name)),
            "sound" => sound(name),
            _ => numbered(name),
        };
        let series = if subsystem == "sound" && before.ends_with('C') {
            "C"
        } else {
            before
        };
        Some(Self {
            directory,
            series,
            before,
            number,
            after,
            form,
        })
    }

    pub(super) fn with_number(&self, number: u64) -> String {
        format!("{}{}{}", self.before, self.form.write(number), self.after)
    }

    /// The number in a name that [`Self::with_number`] made.
    pub(super) fn number_in(&self, name: &str) -> Option<u64> {
        let number = name.strip_prefix(self.before)?.strip_suffix(self.after)?;
        self.form.read(number)
    }
}

impl NumberForm {
    fn write(self, number: u64) -> String {
        match self {
            Self::DigitsAfterFirst if number == 0 => String::new(),
            Self::Digits | Self::DigitsAfterFirst => number.to_string(),
            Self::RenderNode => (FIRST_RENDER_NODE + number).to_string(),
            Self::Letters => letters(number),
        }
    }

    fn read(self, text: &str) -> Option<u64> {
        let number = match self {
            Self::DigitsAfterFirst if text.is_empty() => 0,
            Self::Digits | Self::DigitsAfterFirst => text.parse().ok()?,
            Self::RenderNode => text.parse::<u64>().ok()?.checked_sub(FIRST_RENDER_NODE)?,
            Self::Letters => number_of_letters(text)?,
        };
        // Not `ttyUSB00`.
        (self.write(number) == text).then_some(number)
    }
}

/// A name in parts: before the number, the number, after it, and how the number is written.
type Parts<'a> = (&'a str, Option<u64>, &'a str, NumberForm);

/// The first number in a name: `nst0l`, `mmcblk1p2`, `nvme0n1`, `wwan0at1`. A name without a number
/// is the first of its series.
fn numbered(name: &str) -> Parts<'_> {
    let known = WITH_DIGIT.iter().find(|known| name.starts_with(**known));
    let is_digit = |letter: char| letter.is_ascii_digit();
    let start = known.map_or_else(|| name.find(is_digit), |known| Some(known.len()));
    let (before, rest) = name.split_at(start.unwrap_or(name.len()));
    let end = rest.find(|letter| !is_digit(letter)).unwrap_or(rest.len());
    match rest[..end].parse() {
        Ok(number) if before == "renderD" => (before, Some(number), &rest[end..], NumberForm::RenderNode),
        Ok(number) => (before, Some(number), &rest[end..], NumberForm::Digits),
        Err(_) => (name, None, "", NumberForm::DigitsAfterFirst),
    }
}

/// `controlC1`, `pcmC1D0p` of ALSA; `dsp`, `dsp1` of its OSS emulation, where the first card has no
/// digit (sound/sound_core.c, sound_insert_unit).
fn sound(name: &str) -> Parts<'_> {
    match numbered(name) {
        (before, Some(number), after, _) if !before.ends_with('C') => {
            (before, Some(number), after, NumberForm::DigitsAfterFirst)
        }
        (before, None, after, form) => (before, Some(0), after, form),
        parts => parts,
    }
}

/// A disk or partition whose number is a letter: `sdb1`.
fn disk(name: &str) -> Option<Parts<'_>> {
    let rest = |known: &&'static str| name.strip_prefix(*known).map(|rest| (known.len(), rest));
    let (length, rest) = LETTERED_DISKS.iter().find_map(rest)?;
    let end = rest.find(|letter: char| !letter.is_ascii_lowercase());
    let (number, partition) = rest.split_at(end.unwrap_or(rest.len()));
    let is_partition = partition.bytes().all(|digit| digit.is_ascii_digit());
    let number = number_of_letters(number).filter(|_| is_partition)?;
    Some((&name[..length], Some(number), partition, NumberForm::Letters))
}

/// `a` for 0, `z` for 25, `aa` for 26 (drivers/scsi/sd.c, sd_format_disk_name).
pub(super) fn letters(number: u64) -> String {
    let mut letters = Vec::new();
    let mut rest = Some(number);
    while let Some(number) = rest {
        letters.push(char::from(b'a' + (number % 26) as u8));
        rest = (number / 26).checked_sub(1);
    }
    letters.into_iter().rev().collect()
}

/// The reverse of [`letters`]; `None` for an empty or much too long text.
fn number_of_letters(text: &str) -> Option<u64> {
    let is_number = (1..=8).contains(&text.len()) && text.bytes().all(|letter| letter.is_ascii_lowercase());
    let count = |sum: u64, letter: u8| sum * 26 + u64::from(letter - b'a') + 1;
    is_number.then(|| text.bytes().fold(0, count) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::device::recorded;

    #[test]
    fn every_form_of_names_has_its_own_number() {
        for (subsystem, node, first, second) in [
            ("tty", "/dev/ttyACM5", "ttyACM0", "ttyACM1"),
            ("sound", "/dev/snd/hwC2D0", "hwC0D0", "hwC1D0"),
            ("sound", "/dev/snd/seq", "seq", "seq1"),
            ("sound", "/dev/dsp1", "dsp", "dsp1"),
            ("sound", "/dev/dsp", "dsp", "dsp1"),
            ("scsi_tape", "/dev/nst12l", "nst0l", "nst1l"),
            ("block", "/dev/sr1", "sr0", "sr1"),
            ("block", "/dev/sdab15", "sda15", "sdb15"),
            ("block", "/dev/vdc", "vda", "vdb"),
            ("block", "/dev/nvme2n1p3", "nvme0n1p3", "nvme1n1p3"),
            ("block", "/dev/mmcblk1boot0", "mmcblk0boot0", "mmcblk1boot0"),
            ("block", "/dev/sdX", "sdX", "sdX1"),
            ("nvme-generic", "/dev/ng2n1", "ng0n1", "ng1n1"),
            ("drm", "/dev/dri/card1", "card0", "card1"),
            ("drm", "/dev/dri/renderD130", "renderD128", "renderD129"),
            ("i2c-dev", "/dev/i2c-11", "i2c-0", "i2c-1"),
            ("video4linux", "/dev/v4l-subdev3", "v4l-subdev0", "v4l-subdev1"),
            ("spidev", "/dev/spidev1.2", "spidev0.2", "spidev1.2"),
            ("bsg", "/dev/bsg/7:0:0:1", "0:0:0:1", "1:0:0:1"),
            ("wwan", "/dev/wwan1at0", "wwan0at0", "wwan1at0"),
            ("misc", "/dev/uinput", "uinput", "uinput1"),
            (
                "misc",
                "/dev/x99999999999999999999",
                "x99999999999999999999",
                "x999999999999999999991",
            ),
        ] {
            let device = recorded::virtual_device(subsystem, "x", node, 1, 1);
            let host = HostName::of(&device).unwrap();
            for (number, expected) in [(0, first), (1, second)] {
                assert_eq!(host.with_number(number), expected, "{node}");
                assert_eq!(host.number_in(expected), Some(number), "{node}");
            }
        }
        let device = recorded::virtual_device("tty", "x", "/dev/ttyACM5", 1, 1);
        let tty = HostName::of(&device).unwrap();
        for other in ["ttyACM", "ttyACM00", "ttyACM+1", "ttyUSB0", "ttyACM0a"] {
            assert_eq!(tty.number_in(other), None, "{other}");
        }
    }

    #[test]
    fn letters_are_those_of_the_kernel() {
        for (number, text) in [(0, "a"), (25, "z"), (26, "aa"), (701, "zz"), (702, "aaa")] {
            assert_eq!(letters(number), text);
            assert_eq!(number_of_letters(text), Some(number));
        }
        for text in ["", "A", "a1", "aaaaaaaaa"] {
            assert_eq!(number_of_letters(text), None, "{text:?}");
        }
    }
}
