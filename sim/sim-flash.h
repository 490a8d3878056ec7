/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

#define SIM_FLASH_SIZE      0x80000u
#define SIM_FLASH_SECTOR    0x1000u
#define SIM_FLASH_BANKS_MAX 3

/* Flash map (protocol/gatt.md section 8). */
#define SIM_FLASH_RECORDS 0x78000u

/* Offsets in an image (protocol/image.md section 1). */
#define SIM_IMAGE_MARK 0x08u
#define SIM_IMAGE_SIZE 0x18u

/**
 * SimFlash:
 *
 * The NOR flash of one thermometer: erased bytes are FF, programming only clears bits. Sectors that
 * were never written cost no memory.
 */
typedef struct _SimFlash SimFlash;

SimFlash *sim_flash_new (void);
void sim_flash_free (SimFlash *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (SimFlash, sim_flash_free)

/**
 * sim_flash_load: / sim_flash_save:
 *
 * The file is the flash byte for byte, %SIM_FLASH_SIZE bytes. Saving replaces the file atomically,
 * and does nothing when nothing changed since the last load or save.
 */
gboolean sim_flash_load (SimFlash *self, const char *path, GError **error);
gboolean sim_flash_save (SimFlash *self, const char *path, GError **error);

/* Erases every sector that @len bytes from @address touch. */
void sim_flash_erase (SimFlash *self, guint32 address, guint32 len);
/* Clears bits. Returns: %FALSE, with nothing changed, if it would pass the end of the flash. */
gboolean sim_flash_program (SimFlash *self, guint32 address, const guint8 *data, gsize len);
/* As firmware does that stores data again: sectors in the way are read, erased and programmed. */
gboolean sim_flash_rewrite (SimFlash *self, guint32 address, const guint8 *data, gsize len);
/* Bytes past the end read as FF. */
void sim_flash_read (SimFlash *self, guint32 address, guint8 *out, gsize len);
/* (transfer full): a copy of @len bytes from @address */
guint8 *sim_flash_dup (SimFlash *self, guint32 address, gsize len);
/* Bytes from @address up to and with the last one programmed since its sector was erased, at most
 * @len. After a load: up to the last byte that is not FF. */
guint32 sim_flash_get_written (SimFlash *self, guint32 address, guint32 len);

/* The boot mark "KNLT" at offset 8 of a bank (protocol/ota-telink.md section 5). */
gboolean sim_flash_is_marked (SimFlash *self, guint32 bank);
/* One byte makes it bootable; four zero bytes end that. */
void sim_flash_mark (SimFlash *self, guint32 bank);
void sim_flash_unmark (SimFlash *self, guint32 bank);
/* What the boot code does: the first marked bank in the order given. Returns: %FALSE: none */
gboolean sim_flash_boot (SimFlash *self, const guint32 *banks, guint n_banks, guint32 *out);

/* Small records, one of each type; a later one replaces an earlier one. 1..64 bytes. */
#define SIM_RECORD_MAX 64
void sim_flash_put_record (SimFlash *self, guint8 type, const guint8 *data, gsize len);
/* @out: room for %SIM_RECORD_MAX bytes. Returns: length, 0: none */
gsize sim_flash_get_record (SimFlash *self, guint8 type, guint8 *out);
/* As an empty record: from now on there is none of this type. */
void sim_flash_drop_record (SimFlash *self, guint8 type);

G_END_DECLS
