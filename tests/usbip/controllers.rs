//! What stands for a kernel's USB/IP controllers.

use std::fs;
use std::time::{Duration, Instant};

use oci_hotplug::model::remote::address::RemoteDevice;
use oci_hotplug::usbip::vhci::Vhci;
use oci_hotplug::usbip::{Purpose, Usbip};

use super::LONG;
use super::usbip_server::UsbipServer;

/// A kernel's USB/IP controllers: files that accept what is written and do nothing.
pub struct Kernel(tempfile::TempDir);

impl Kernel {
    pub fn new() -> Self {
        let kernel = Self(tempfile::tempdir().expect("a scratch directory"));
        let control = kernel.control();
        for (hub, speed) in [("usb3", "480"), ("usb4", "5000")] {
            fs::create_dir_all(control.join(hub)).expect("a hub");
            fs::write(control.join(hub).join("speed"), speed).expect("its speed");
            fs::write(control.join(hub).join("authorized_default"), "1\n").expect("its rule");
        }
        fs::write(control.join("nports"), "4\n").expect("ports");
        fs::write(control.join("attach"), "").expect("a file to write to");
        fs::write(control.join("detach"), "").expect("a file to write to");
        kernel.shows("006 002 00010009", "004 000 00000000");
        kernel
    }

    /// The ports of the high-speed hub: 0 and 1.
    pub fn shows(&self, zero: &str, one: &str) {
        let status = format!(
            "hub port sta spd dev      sockfd local_busid\nhs  0000 {zero} 000003 0-0\nhs  0001 {one} 000003 0-0\n\
             ss  0002 004 000 00000000 000000 0-0\nss  0003 004 000 00000000 000000 0-0\n"
        );
        // Replace the file at once, as the kernel shows it: no reader may see half of it.
        let (part, whole) = (self.control().join("part"), self.control().join("status"));
        fs::write(&part, status).expect("a status");
        fs::rename(part, whole).expect("show the new status");
    }

    fn control(&self) -> std::path::PathBuf {
        self.0.path().join("vhci_hcd.0")
    }

    pub fn usbip(&self) -> Usbip {
        let vhci = Vhci::open_below(self.0.path()).expect("controllers");
        Usbip::new(vhci, &self.state())
    }

    pub fn state(&self) -> std::path::PathBuf {
        self.0.path().join("state")
    }

    pub fn was_told(&self, file: &str) -> String {
        fs::read_to_string(self.control().join(file)).expect("what was written")
    }
}

/// The reason for which this device cannot be attached, with SERVER for the server's address.
pub fn attach(kernel: &Kernel, server: &UsbipServer, which: &str, patience: Duration) -> String {
    let device: RemoteDevice = format!("{}/{which}", server.address).parse().expect("a device");
    let began = Instant::now();
    let error = kernel
        .usbip()
        .attach(&device, &Purpose::default(), patience)
        .expect_err("a fault");
    assert!(began.elapsed() < LONG, "{:?}", began.elapsed());
    error.to_string().replace(&server.address.to_string(), "SERVER")
}
