// Prints all serial ports with vendor and serial number whenever they change. It is started once.
const { SerialPort } = require("serialport");

let shown = null;

async function list() {
  const ports = await SerialPort.list();
  const words = ports.map((port) => `${port.path} ${port.vendorId ?? "-"} ${port.serialNumber ?? "-"}`);
  const now = words.sort().join(", ");
  if (now !== shown) {
    shown = now;
    console.log(`ports: ${now}`);
  }
  setTimeout(list, 1000);
}

list();
