//! Disks.

use crate::model::device::{DevKind, Device};

/// A SATA disk with two partitions.
pub(crate) fn disk_with_partitions() -> Vec<Device> {
    let controller = "/sys/devices/pci0000:00/0000:00:17.0";
    let scsi = format!("{controller}/ata1/host0/target0:0:0/0:0:0:0");
    let disk = format!("{scsi}/block/sda");
    let block = |path: &str, node: &str, minor: u32, devtype: &str, id: &str| {
        Device::recorded(path, "block")
            .devtype(devtype)
            .node(node, DevKind::Block, 8, minor)
            .property("ID_BUS", "ata")
            .tag("systemd")
            .link(&format!("/dev/disk/by-id/ata-QEMU_HARDDISK_QM00001{id}"))
    };
    vec![
        Device::recorded(controller, "pci").driver("ahci"),
        Device::recorded(&scsi, "scsi")
            .devtype("scsi_device")
            .driver("sd"),
        Device::recorded(format!("{scsi}/scsi_generic/sg0"), "scsi_generic").node(
            "/dev/sg0",
            DevKind::Char,
            21,
            0,
        ),
        block(&disk, "/dev/sda", 0, "disk", "").attr("size", "41943040"),
        block(&format!("{disk}/sda1"), "/dev/sda1", 1, "partition", "-part1")
            .attr("partition", "1")
            .property("ID_FS_TYPE", "vfat"),
        block(&format!("{disk}/sda2"), "/dev/sda2", 2, "partition", "-part2")
            .attr("partition", "2")
            .property("ID_FS_TYPE", "ext4")
            .link("/dev/disk/by-label/root"),
    ]
}
