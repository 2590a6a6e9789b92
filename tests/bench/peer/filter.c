/*
 * A device filter for container-hotplug, for machines that cannot compile its own one, which is
 * written in Rust and needs bpf-linker. It has the same map and makes the same decisions:
 *
 *   1. a request for nothing but mknod is allowed;
 *   2. the devices that every container has are allowed;
 *   3. the map decides about every other device; a device that is not in it has the permissions of
 *      the device 0:0 of its type.
 *
 * container-hotplug finds program and map by their names and loads them with its own code.
 */

typedef unsigned int u32;

/* struct bpf_cgroup_dev_ctx and the constants for it: linux/bpf.h */
struct request {
	u32 access_type; /* the access in the upper half, the type in the lower half */
	u32 major;
	u32 minor;
};

enum { BLOCK = 1, CHARACTER = 2 };
enum { MKNOD = 1 };
enum { MAP_TYPE_HASH = 1, NO_PREALLOC = 1 };

struct device {
	u32 type;
	u32 major;
	u32 minor;
};

/* The definition of a map as loaders of ELF files without type information know it. */
struct map {
	u32 type;
	u32 key_size;
	u32 value_size;
	u32 max_entries;
	u32 flags;
	u32 id;
	u32 pinning;
};

__attribute__((section("maps"), used)) struct map DEVICE_PERM = {
	.type = MAP_TYPE_HASH,
	.key_size = sizeof(struct device),
	.value_size = sizeof(u32),
	.max_entries = 256,
	.flags = NO_PREALLOC,
};

/* bpf_map_lookup_elem */
static void *(*const look_up)(void *map, const void *key) = (void *)1;

static __attribute__((always_inline)) int is_in_every_container(const struct device *device)
{
	if (device->type != CHARACTER)
		return 0;
	switch (device->major) {
	case 1: /* null, zero, full, random, urandom */
		return device->minor == 3 || device->minor == 5 || (device->minor >= 7 && device->minor <= 9);
	case 5: /* tty, console, ptmx */
		return device->minor <= 2;
	case 136: /* pts */
		return 1;
	default:
		return 0;
	}
}

__attribute__((section("cgroup/dev"), used)) int check_device(struct request *request)
{
	struct device device = {
		.type = request->access_type & 0xffff,
		.major = request->major,
		.minor = request->minor,
	};
	u32 access = request->access_type >> 16;
	u32 *permissions;

	if (access == MKNOD && (device.type == BLOCK || device.type == CHARACTER))
		return 1;
	if (is_in_every_container(&device))
		return 1;
	permissions = look_up(&DEVICE_PERM, &device);
	if (!permissions) {
		device.major = 0;
		device.minor = 0;
		permissions = look_up(&DEVICE_PERM, &device);
	}
	return permissions && (*permissions & access) == access;
}
