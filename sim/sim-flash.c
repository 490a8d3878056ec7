/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "sim-flash.h"

#include "mi.h"

#include <gio/gio.h>
#include <string.h>

#define SECTORS      (SIM_FLASH_SIZE / SIM_FLASH_SECTOR)
#define ERASED       0xff
#define RECORD_TYPES 255 /* 0xff ends the list */

static const guint8 boot_mark[4] = { 0x4b, 0x4e, 0x4c, 0x54 };

typedef struct
{
  guint8 *data; /* NULL: erased */
  guint32 used; /* one past the highest byte programmed */
} Sector;

struct _SimFlash
{
  Sector sectors[SECTORS];
  gboolean dirty;
};

SimFlash *
sim_flash_new (void)
{
  return g_new0 (SimFlash, 1);
}

void
sim_flash_free (SimFlash *self)
{
  if (self == NULL)
    return;
  for (guint i = 0; i < SECTORS; i++)
    g_free (self->sectors[i].data);
  g_free (self);
}

static void
erase_sector (SimFlash *self, guint index)
{
  if (self->sectors[index].data == NULL)
    return;
  g_clear_pointer (&self->sectors[index].data, g_free);
  self->sectors[index].used = 0;
  self->dirty = TRUE;
}

void
sim_flash_erase (SimFlash *self, guint32 address, guint32 len)
{
  if (len == 0 || address >= SIM_FLASH_SIZE)
    return;
  len = MIN (len, SIM_FLASH_SIZE - address);
  for (guint i = address / SIM_FLASH_SECTOR; i <= (address + len - 1) / SIM_FLASH_SECTOR; i++)
    erase_sector (self, i);
}

static void
program_sector (SimFlash *self, guint index, guint32 offset, const guint8 *data, gsize len)
{
  Sector *sector = &self->sectors[index];

  if (sector->data == NULL)
    {
      sector->data = g_malloc (SIM_FLASH_SECTOR);
      memset (sector->data, ERASED, SIM_FLASH_SECTOR);
    }
  for (gsize i = 0; i < len; i++)
    sector->data[offset + i] &= data[i];
  sector->used = MAX (sector->used, offset + (guint32) len);
  self->dirty = TRUE;
}

static gboolean
is_inside (guint32 address, gsize len)
{
  return address <= SIM_FLASH_SIZE && len <= SIM_FLASH_SIZE - address;
}

gboolean
sim_flash_program (SimFlash *self, guint32 address, const guint8 *data, gsize len)
{
  if (!is_inside (address, len))
    return FALSE;
  while (len > 0)
    {
      guint32 offset = address % SIM_FLASH_SECTOR;
      gsize n = MIN (len, SIM_FLASH_SECTOR - offset);

      program_sector (self, address / SIM_FLASH_SECTOR, offset, data, n);
      address += (guint32) n;
      data += n;
      len -= n;
    }
  return TRUE;
}

static gboolean
only_clears_bits (const Sector *sector, guint32 offset, const guint8 *data, gsize len)
{
  for (gsize i = 0; sector->data != NULL && i < len; i++)
    if ((sector->data[offset + i] & data[i]) != data[i])
      return FALSE;
  return TRUE;
}

static void
rewrite_sector (SimFlash *self, guint index, guint32 offset, const guint8 *data, gsize len)
{
  Sector *sector = &self->sectors[index];
  guint8 copy[SIM_FLASH_SECTOR];
  guint32 used = MAX (sector->used, offset + (guint32) len);

  if (only_clears_bits (sector, offset, data, len))
    {
      program_sector (self, index, offset, data, len);
      return;
    }
  memcpy (copy, sector->data, sizeof copy);
  memcpy (copy + offset, data, len);
  erase_sector (self, index);
  program_sector (self, index, 0, copy, used);
}

gboolean
sim_flash_rewrite (SimFlash *self, guint32 address, const guint8 *data, gsize len)
{
  if (!is_inside (address, len))
    return FALSE;
  while (len > 0)
    {
      guint32 offset = address % SIM_FLASH_SECTOR;
      gsize n = MIN (len, SIM_FLASH_SECTOR - offset);

      rewrite_sector (self, address / SIM_FLASH_SECTOR, offset, data, n);
      address += (guint32) n;
      data += n;
      len -= n;
    }
  return TRUE;
}

void
sim_flash_read (SimFlash *self, guint32 address, guint8 *out, gsize len)
{
  memset (out, ERASED, len);
  while (len > 0 && address < SIM_FLASH_SIZE)
    {
      const Sector *sector = &self->sectors[address / SIM_FLASH_SECTOR];
      guint32 offset = address % SIM_FLASH_SECTOR;
      gsize n = MIN (len, SIM_FLASH_SECTOR - offset);

      if (sector->data != NULL)
        memcpy (out, sector->data + offset, n);
      address += (guint32) n;
      out += n;
      len -= n;
    }
}

guint8 *
sim_flash_dup (SimFlash *self, guint32 address, gsize len)
{
  guint8 *copy = g_malloc (MAX (len, 1));

  sim_flash_read (self, address, copy, len);
  return copy;
}

guint32
sim_flash_get_written (SimFlash *self, guint32 address, guint32 len)
{
  guint32 end = MIN (address + len, SIM_FLASH_SIZE);

  for (guint i = (end + SIM_FLASH_SECTOR - 1) / SIM_FLASH_SECTOR; i > address / SIM_FLASH_SECTOR;
       i--)
    if (self->sectors[i - 1].used > 0)
      {
        guint32 written = (i - 1) * SIM_FLASH_SECTOR + self->sectors[i - 1].used;

        return written > address ? MIN (written, end) - address : 0;
      }
  return 0;
}

/* Files */

static void
load_sector (SimFlash *self, guint index, const guint8 *data)
{
  guint32 used = SIM_FLASH_SECTOR;

  while (used > 0 && data[used - 1] == ERASED)
    used--;
  erase_sector (self, index);
  if (used > 0)
    program_sector (self, index, 0, data, used);
}

gboolean
sim_flash_load (SimFlash *self, const char *path, GError **error)
{
  g_autofree char *text = NULL;
  gsize len;

  if (!g_file_get_contents (path, &text, &len, error))
    return FALSE;
  if (len != SIM_FLASH_SIZE)
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                   "%s: %" G_GSIZE_FORMAT " bytes, a flash has %u", path, len, SIM_FLASH_SIZE);
      return FALSE;
    }
  for (guint i = 0; i < SECTORS; i++)
    load_sector (self, i, (const guint8 *) text + i * SIM_FLASH_SECTOR);
  self->dirty = FALSE;
  return TRUE;
}

gboolean
sim_flash_save (SimFlash *self, const char *path, GError **error)
{
  g_autofree guint8 *copy = NULL;

  if (!self->dirty)
    return TRUE;
  copy = sim_flash_dup (self, 0, SIM_FLASH_SIZE);
  if (!g_file_set_contents_full (path, (const char *) copy, SIM_FLASH_SIZE,
                                 G_FILE_SET_CONTENTS_CONSISTENT, 0600, error))
    return FALSE;
  self->dirty = FALSE;
  return TRUE;
}

/* Boot mark */

gboolean
sim_flash_is_marked (SimFlash *self, guint32 bank)
{
  guint8 mark[sizeof boot_mark];

  sim_flash_read (self, bank + SIM_IMAGE_MARK, mark, sizeof mark);
  return memcmp (mark, boot_mark, sizeof mark) == 0;
}

void
sim_flash_mark (SimFlash *self, guint32 bank)
{
  sim_flash_program (self, bank + SIM_IMAGE_MARK, boot_mark, 1);
}

void
sim_flash_unmark (SimFlash *self, guint32 bank)
{
  static const guint8 zeros[sizeof boot_mark] = { 0 };

  sim_flash_program (self, bank + SIM_IMAGE_MARK, zeros, sizeof zeros);
}

gboolean
sim_flash_boot (SimFlash *self, const guint32 *banks, guint n_banks, guint32 *out)
{
  for (guint i = 0; i < n_banks; i++)
    if (sim_flash_is_marked (self, banks[i]))
      {
        *out = banks[i];
        return TRUE;
      }
  return FALSE;
}

/* Records: type, length, data; one after the other in one sector, the last of a type counts. */

typedef struct
{
  guint8 len;
  guint8 data[SIM_RECORD_MAX];
} Record;

/* Returns: where the next record goes, or the sector's size when it is unreadable from there on */
static guint32
scan_records (SimFlash *self, guint8 type, Record *found)
{
  guint32 at = 0;

  while (at + 2 <= SIM_FLASH_SECTOR)
    {
      guint8 head[2];

      sim_flash_read (self, SIM_FLASH_RECORDS + at, head, sizeof head);
      if (head[0] == ERASED)
        return at;
      if (head[1] > SIM_RECORD_MAX || at + 2 + head[1] > SIM_FLASH_SECTOR)
        break;
      if (head[0] == type && found != NULL)
        {
          found->len = head[1];
          sim_flash_read (self, SIM_FLASH_RECORDS + at + 2, found->data, found->len);
        }
      at += 2u + head[1];
    }
  return SIM_FLASH_SECTOR;
}

static guint32
append_record (SimFlash *self, guint32 at, guint8 type, const guint8 *data, gsize len)
{
  guint8 head[2] = { type, (guint8) len };

  sim_flash_program (self, SIM_FLASH_RECORDS + at, head, sizeof head);
  sim_flash_program (self, SIM_FLASH_RECORDS + at + 2, data, len);
  return at + 2 + (guint32) len;
}

/* The sector is full: keeps the last record of each type. */
static guint32
compact_records (SimFlash *self)
{
  g_autofree Record *records = g_new0 (Record, RECORD_TYPES);
  guint32 at = 0;

  for (guint type = 0; type < RECORD_TYPES; type++)
    scan_records (self, (guint8) type, &records[type]);
  sim_flash_erase (self, SIM_FLASH_RECORDS, SIM_FLASH_SECTOR);
  for (guint type = 0; type < RECORD_TYPES; type++)
    if (records[type].len > 0)
      at = append_record (self, at, (guint8) type, records[type].data, records[type].len);
  mi_crypto_wipe (records, RECORD_TYPES * sizeof *records);
  return at;
}

static void
store_record (SimFlash *self, guint8 type, const guint8 *data, gsize len)
{
  guint32 at = scan_records (self, type, NULL);

  if (at + 2 + len > SIM_FLASH_SECTOR)
    at = compact_records (self);
  if (at + 2 + len <= SIM_FLASH_SECTOR)
    append_record (self, at, type, data, len);
}

void
sim_flash_put_record (SimFlash *self, guint8 type, const guint8 *data, gsize len)
{
  g_return_if_fail (len > 0 && len <= SIM_RECORD_MAX && type < RECORD_TYPES);

  store_record (self, type, data, len);
}

void
sim_flash_drop_record (SimFlash *self, guint8 type)
{
  guint8 out[SIM_RECORD_MAX];

  if (sim_flash_get_record (self, type, out) > 0)
    store_record (self, type, NULL, 0);
}

gsize
sim_flash_get_record (SimFlash *self, guint8 type, guint8 *out)
{
  Record found = { 0 };

  scan_records (self, type, &found);
  memcpy (out, found.data, found.len);
  mi_crypto_wipe (found.data, sizeof found.data);
  return found.len;
}
