"""Fails unless a browser (WebKit) draws every diagram of the site's pages: drawn.py PAGE=DIAGRAMS...

Runs under an X server. No page is waited for longer than a minute.
"""

import os
import sys

import gi

gi.require_version("Gtk", "3.0")
gi.require_version("WebKit2", "4.1")
from gi.repository import GLib, Gtk, WebKit2

# What docs/diagrams.js has made of each Mermaid block: the kind of the diagram, or "error", or
# nothing.
DRAWN = """[...document.querySelectorAll('pre.mermaid')].map((block) => {
    const picture = block.querySelector('svg');
    return picture ? picture.getAttribute('aria-roledescription') : '';
}).join(' ')"""


def drawn(page, wanted):
    """The diagrams of a page, as soon as there are `wanted` of them or a minute has passed."""
    view = WebKit2.WebView()
    window = Gtk.OffscreenWindow()
    window.add(view)
    window.show_all()
    found = []
    loop = GLib.MainLoop()

    def answer(_, result):
        try:
            found[:] = view.evaluate_javascript_finish(result).to_string().split()
        except GLib.Error:
            pass  # The page is not loaded yet.
        if len(found) >= wanted:
            loop.quit()

    def ask():
        view.evaluate_javascript(DRAWN, -1, None, None, None, answer)
        return True

    view.load_uri("file://" + os.path.abspath(page))
    asking = GLib.timeout_add(100, ask)
    deadline = GLib.timeout_add_seconds(60, loop.quit)
    loop.run()
    GLib.source_remove(asking)
    if len(found) >= wanted:
        GLib.source_remove(deadline)
    window.destroy()
    return found


failed = False
for argument in sys.argv[1:]:
    page, wanted = argument.rsplit("=", 1)
    found = drawn(page, int(wanted))
    print(f"{page}: {wanted} diagrams, drawn: {' '.join(found) or 'none'}", flush=True)
    failed |= len(found) != int(wanted) or "error" in found
sys.exit(failed)
