"""Opens the joysticks that SDL 2 reports, and prints them: `added NAME`, `removed`."""

import ctypes

INIT_JOYSTICK = 0x200
JOYDEVICEADDED, JOYDEVICEREMOVED = 0x605, 0x606

sdl = ctypes.CDLL("libSDL2-2.0.so.0")
sdl.SDL_JoystickOpen.restype = ctypes.c_void_p
sdl.SDL_JoystickName.argtypes = [ctypes.c_void_p]
sdl.SDL_JoystickName.restype = ctypes.c_char_p
# Events of joysticks come without a window that has the focus.
sdl.SDL_SetHint(b"SDL_JOYSTICK_ALLOW_BACKGROUND_EVENTS", b"1")
assert sdl.SDL_Init(INIT_JOYSTICK) == 0, sdl.SDL_GetError()
print("listening", flush=True)
# SDL_Event is a union of 56 bytes: type, timestamp, then index or instance.
event = (ctypes.c_uint32 * 14)()
while True:
    if not sdl.SDL_WaitEventTimeout(event, 100):
        continue
    if event[0] == JOYDEVICEADDED:
        joystick = sdl.SDL_JoystickOpen(event[2])
        print("added", sdl.SDL_JoystickName(joystick).decode() if joystick else "what cannot be opened", flush=True)
    elif event[0] == JOYDEVICEREMOVED:
        print("removed", flush=True)
