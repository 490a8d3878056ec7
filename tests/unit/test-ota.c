/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "drive.h"

#include "mi-bytes.h"
#include "mi-crypto.h"
#include "mi-ota.h"

#include <stdlib.h>
#include <string.h>

/* --- counting allocations of the whole program, GLib's included ------------------------------- */

static gsize n_allocations;

#if defined(__has_feature)
#  if __has_feature(address_sanitizer)
#    define WITH_ASAN 1
#  endif
#endif
#ifdef __SANITIZE_ADDRESS__
#  define WITH_ASAN 1
#endif

#ifdef WITH_ASAN
int __sanitizer_install_malloc_and_free_hooks (void (*on_malloc) (const volatile void *, size_t),
                                               void (*on_free) (const volatile void *));

static void
count_malloc (const volatile void *pointer, size_t size)
{
  n_allocations++;
}

static void
count_free (const volatile void *pointer)
{
}

static void
start_counting (void)
{
  g_assert_cmpint (__sanitizer_install_malloc_and_free_hooks (count_malloc, count_free), >, 0);
}
#else
void *__libc_malloc (size_t size);
void *__libc_calloc (size_t n, size_t size);
void *__libc_realloc (void *pointer, size_t size);

void *
malloc (size_t size)
{
  n_allocations++;
  return __libc_malloc (size);
}

void *
calloc (size_t n, size_t size)
{
  n_allocations++;
  return __libc_calloc (n, size);
}

void *
realloc (void *pointer, size_t size)
{
  n_allocations++;
  return __libc_realloc (pointer, size);
}

static void
start_counting (void)
{
}
#endif

static void
test_counter (void)
{
  gsize before = n_allocations;
  g_autofree char *text = g_strdup ("counted");

  g_assert_nonnull (text);
  g_assert_cmpuint (n_allocations, >, before);
}

/* --- vectors ------------------------------------------------------------------------------------
 */

static JsonObject *vectors;

/* Image of ota_telink.json: synthetic bytes, the header, the CRC at the end. */
static guint8 *
build_image (gsize size, guint seed)
{
  guint8 *image = g_malloc (size);

  for (gsize i = 0; i < size; i++)
    image[i] = (guint8) (i * 7 + (i >> 8) * 13 + seed);
  mi_put_u16 (image, 0x8026);
  mi_put_u32 (image + 2, 0);
  mi_put_u16 (image + 6, 0x025d);
  memcpy (image + 8, "KNLT", 4);
  mi_put_u16 (image + 0x12, 0);
  mi_put_u16 (image + 0x14, 0);
  mi_put_u32 (image + 0x18, (guint32) size);
  mi_put_u32 (image + size - 4, mi_crc32 (0xffffffff, image, size - 4));
  return image;
}

typedef struct
{
  guint8 *image;
  gsize len;
  Drive *drive;
  guint reads, reads_answered;
} Fixture;

static void
fixture_init (Fixture *self, gsize size, guint seed, MiOtaOptions options)
{
  *self = (Fixture){ .image = build_image (size, seed), .len = size };
  self->drive = drive_new (mi_ota_new (self->image, size, &options));
}

static void
fixture_clear (Fixture *self)
{
  drive_free (self->drive);
  g_free (self->image);
}

static const char *
last_line (Drive *drive)
{
  return g_ptr_array_index (drive->lines, drive->lines->len - 1);
}

static void
answer_value (Fixture *self, guint8 value)
{
  drive_channel_event (self->drive, MI_EVENT_VALUE, MI_CHANNEL_OTA, &value, 1);
}

static guint
count_lines (Drive *drive, const char *prefix)
{
  guint n = 0;

  for (guint i = 0; i < drive->lines->len; i++)
    n += g_str_has_prefix (g_ptr_array_index (drive->lines, i), prefix);
  return n;
}

/* Starts and goes through the waits, up to the first window. */
static void
begin (Fixture *self)
{
  drive_event (self->drive, MI_EVENT_START);
  while (count_lines (self->drive, "r ") == 0 && drive_tick (self->drive))
    ;
}

static void
test_crc (void)
{
  g_assert_cmphex (mi_crc16_modbus ((const guint8 *) "123456789", 9), ==, 0x4b37);
  g_assert_cmphex (mi_crc32 (0xffffffff, (const guint8 *) "123456789", 9), ==, 0x340bc6d9);
}

static void
test_small (void)
{
  JsonObject *small = json_object_get_object_member (vectors, "small");
  JsonArray *writes = json_object_get_array_member (small, "writes");
  guint8 image[100];
  Fixture f;
  guint k = 0;

  fixture_init (&f, 100, 1, (MiOtaOptions){ .pipelined = TRUE });
  drive_hex (small, "image", image, sizeof image);
  g_assert_cmpmem (f.image, f.len, image, sizeof image);
  begin (&f);
  answer_value (&f, 0);
  for (guint i = 0; i < f.drive->lines->len; i++)
    {
      const char *line = g_ptr_array_index (f.drive->lines, i);

      if (line[0] == '>')
        g_assert_cmpstr (line + 7, ==, json_array_get_string_element (writes, k++));
    }
  g_assert_cmpuint (k, ==, json_array_get_length (writes));
  fixture_clear (&f);
}

static void
test_session (void)
{
  JsonObject *session = json_object_get_object_member (vectors, "session");
  JsonArray *wire = json_object_get_array_member (session, "wire");
  gint64 start;
  Fixture f;

  fixture_init (&f, 100, 1, (MiOtaOptions){ .set_interval = TRUE });
  drive_event (f.drive, MI_EVENT_START);
  g_assert_cmpint (f.drive->effects.items[0].kind, ==, MI_EFFECT_WRITE_REQUEST);
  g_assert_cmpuint (f.drive->lines->len, ==, 1);
  f.drive->now_ms += 30;
  start = f.drive->now_ms;
  drive_channel_event (f.drive, MI_EVENT_WRITTEN, MI_CHANNEL_INTERVAL, NULL, 0);
  drive_tick (f.drive);
  g_assert_cmpint (f.drive->now_ms - start, ==, 500);
  g_assert_cmpuint (f.drive->lines->len, ==, 3);
  drive_tick (f.drive);
  g_assert_cmpint (f.drive->now_ms - start, ==, 800);
  for (guint i = 0; i < json_array_get_length (wire); i++)
    {
      const char *line = json_array_get_string_element (wire, i);

      if (line[0] != 'r')
        {
          g_assert_cmpstr (g_ptr_array_index (f.drive->lines, i), ==, line);
          continue;
        }
      g_assert_cmpuint (f.drive->lines->len, ==, i + 1);
      g_assert_cmpstr (last_line (f.drive), ==, "r 2b12");
      g_assert_false (mi_ota_end_sent (f.drive->procedure));
      answer_value (&f, 0);
    }
  g_assert_true (mi_ota_end_sent (f.drive->procedure));
  g_assert_cmpuint (f.drive->progress, ==, 100);
  g_assert_cmpuint (f.drive->total, ==, 100);
  drive_event (f.drive, MI_EVENT_LINK_LOST);
  drive_assert_done (f.drive);
  g_assert_true (mi_ota_saw_drop (f.drive->procedure));
  g_assert_cmpuint (mi_ota_get_blocks (f.drive->procedure), ==, 7);
  fixture_clear (&f);
}

/* A device that answers every read at once; nothing is kept but the hash. */
typedef struct
{
  GChecksum *hash;
  guint writes, reads, outstanding, max_unread;
  guint64 bytes;
  guint unread; /* blocks written since the last read was answered */
} Sink;

static void
sink_effects (Sink *self, const MiEffects *effects)
{
  for (guint i = 0; i < effects->n; i++)
    {
      const MiEffect *effect = &effects->items[i];

      if (effect->kind == MI_EFFECT_WRITE || effect->kind == MI_EFFECT_WRITE_REQUEST)
        {
          g_assert_cmphex (effect->channel, ==, MI_CHANNEL_OTA);
          g_checksum_update (self->hash, effect->data, (gssize) effect->len);
          self->writes++;
          self->bytes += effect->len;
          self->unread++;
          self->max_unread = MAX (self->max_unread, self->unread);
        }
      else if (effect->kind == MI_EFFECT_READ)
        {
          self->reads++;
          self->outstanding++;
          g_assert_cmpuint (self->outstanding, ==, 1);
        }
    }
}

/* Whole upload of @image; returns what was sent. @allocations: of all steps after the first. */
static void
upload (Sink *sink, const guint8 *image, gsize len, MiOtaOptions options, gsize *allocations)
{
  g_autoptr (MiProcedure) procedure = mi_ota_new (image, len, &options);
  g_autofree MiEffects *effects = g_new0 (MiEffects, 1);
  const guint8 zero = 0;
  MiEvent event = { .kind = MI_EVENT_START, .now_ms = 5 };
  gsize before;

  *sink = (Sink){ .hash = g_checksum_new (G_CHECKSUM_SHA256) };
  mi_procedure_step (procedure, &event, effects);
  sink_effects (sink, effects);
  before = n_allocations;
  while (!mi_ota_end_sent (procedure))
    {
      event = (MiEvent){ .kind = MI_EVENT_TIMER, .now_ms = event.now_ms };
      if (sink->outstanding > 0)
        {
          sink->outstanding--;
          sink->unread = 0;
          event = (MiEvent){ .kind = MI_EVENT_VALUE,
                             .channel = MI_CHANNEL_OTA,
                             .data = &zero,
                             .len = 1,
                             .now_ms = event.now_ms + 30 };
        }
      else if (options.request
               && g_str_has_suffix (mi_procedure_get_state_name (procedure), "request"))
        event.kind = MI_EVENT_WRITTEN;
      else
        event.now_ms = effects->deadline_ms;
      mi_procedure_step (procedure, &event, effects);
      sink_effects (sink, effects);
      g_assert_false (mi_procedure_is_finished (procedure));
    }
  *allocations = n_allocations - before;
}

static void
test_large (gconstpointer data)
{
  JsonObject *vector = (JsonObject *) data;
  gsize size = (gsize) json_object_get_int_member (vector, "size");
  g_autofree guint8 *image
      = build_image (size, (guint) json_object_get_int_member (vector, "seed"));
  const MiOtaOptions variants[] = { { .pipelined = TRUE },
                                    { .pipelined = FALSE },
                                    { .pipelined = TRUE, .window = MI_OTA_WINDOW_MAX },
                                    { .pipelined = TRUE, .window = 1 },
                                    { .request = TRUE } };
  g_autofree char *hash = g_compute_checksum_for_data (G_CHECKSUM_SHA256, image, size);

  g_assert_cmpstr (hash, ==, json_object_get_string_member (vector, "image_sha256"));
  for (guint i = 0; i < G_N_ELEMENTS (variants); i++)
    {
      guint window = variants[i].window > 0 ? variants[i].window : MI_OTA_WINDOW_DEFAULT;
      guint blocks = (guint) json_object_get_int_member (vector, "blocks");
      gsize allocations;
      Sink sink;

      upload (&sink, image, size, variants[i], &allocations);
      g_assert_cmpstr (g_checksum_get_string (sink.hash), ==,
                       json_object_get_string_member (vector, "wire_sha256"));
      g_assert_cmpint (sink.writes, ==, json_object_get_int_member (vector, "writes"));
      g_assert_cmpint (sink.bytes, ==, json_object_get_int_member (vector, "wire_bytes"));
      g_assert_cmpuint (allocations, ==, 0);
      g_assert_cmpuint (sink.reads, ==, variants[i].request ? 0 : (blocks + window - 1) / window);
      if (variants[i].pipelined)
        g_assert_cmpuint (sink.max_unread, <=, 2 * window + 2);
      g_checksum_free (sink.hash);
    }
}

/* --- order and deviations -----------------------------------------------------------------------
 */

/* 40 blocks are five windows: read of window n, then window n + 1, then its answer. */
static void
test_pipelined (void)
{
  static const guint written_after[] = { 16, 24, 32, 40, 40 };
  Fixture f;

  fixture_init (&f, 640, 1, (MiOtaOptions){ .pipelined = TRUE });
  begin (&f);
  for (guint i = 0; i < 5; i++)
    {
      g_assert_cmpuint (count_lines (f.drive, "> 2b12"), ==, 2 + written_after[i]);
      g_assert_cmpuint (count_lines (f.drive, "r 2b12"), ==, i + 1);
      g_assert_false (mi_ota_end_sent (f.drive->procedure));
      answer_value (&f, 0);
      g_assert_cmpuint (f.drive->progress, ==, (i + 1) * 128);
    }
  g_assert_true (mi_ota_end_sent (f.drive->procedure));
  g_assert_cmpstr (last_line (f.drive), ==, "> 2b12 02ff2700d8ff");
  fixture_clear (&f);
}

static void
test_bad_value (void)
{
  Fixture f;

  fixture_init (&f, 1000, 1, (MiOtaOptions){ .pipelined = TRUE });
  begin (&f);
  answer_value (&f, 0);
  answer_value (&f, 2);
  drive_assert_failed (f.drive, MI_ERROR_OTA);
  g_assert_cmpuint (mi_ota_get_code (f.drive->procedure), ==, 2);
  g_assert_nonnull (strstr (f.drive->message, "code 2 (data CRC)"));
  g_assert_false (mi_ota_end_sent (f.drive->procedure));
  fixture_clear (&f);
}

static void
test_result_notification (void)
{
  Fixture f;

  fixture_init (&f, 1000, 1, (MiOtaOptions){ .pipelined = TRUE });
  begin (&f);
  drive_receive (f.drive, MI_CHANNEL_OTA, "06ff00");
  drive_receive (f.drive, MI_CHANNEL_OTA, "07ff01");
  drive_receive (f.drive, MI_CHANNEL_OTA, "06");
  drive_receive (f.drive, MI_CHANNEL_MEASUREMENT, "06ff01");
  g_assert_false (f.drive->failed);
  drive_receive (f.drive, MI_CHANNEL_OTA, "06ff01");
  drive_assert_failed (f.drive, MI_ERROR_OTA);
  fixture_clear (&f);

  fixture_init (&f, 100, 1, (MiOtaOptions){ .pipelined = TRUE });
  begin (&f);
  answer_value (&f, 0);
  drive_receive (f.drive, MI_CHANNEL_OTA, "06ff06");
  drive_assert_failed (f.drive, MI_ERROR_OTA);
  g_assert_cmpuint (mi_ota_get_code (f.drive->procedure), ==, 6);
  fixture_clear (&f);
}

static void
test_unreadable (void)
{
  Fixture f;

  fixture_init (&f, 1000, 1, (MiOtaOptions){ .pipelined = TRUE });
  begin (&f);
  drive_channel_event (f.drive, MI_EVENT_IO_FAILED, MI_CHANNEL_OTA, NULL, 0);
  drive_assert_failed (f.drive, MI_ERROR_IO);
  g_assert_nonnull (strstr (f.drive->message, "2b12"));
  fixture_clear (&f);
}

static void
test_silent_barrier (void)
{
  Fixture f;

  fixture_init (&f, 1000, 1, (MiOtaOptions){ .pipelined = TRUE });
  begin (&f);
  answer_value (&f, 0);
  g_assert_cmpint (drive_wait_end (f.drive, 10000), ==, 10000);
  drive_assert_failed (f.drive, MI_ERROR_TIMEOUT);
  fixture_clear (&f);
}

static void
test_no_drop (void)
{
  Fixture f;

  fixture_init (&f, 100, 1, (MiOtaOptions){ .pipelined = TRUE });
  begin (&f);
  answer_value (&f, 0);
  g_assert_cmpint (drive_wait_end (f.drive, 10000), ==, 10000);
  drive_assert_done (f.drive);
  g_assert_false (mi_ota_saw_drop (f.drive->procedure));
  fixture_clear (&f);
}

static void
test_cancel_after_end (void)
{
  Fixture f;

  fixture_init (&f, 100, 1, (MiOtaOptions){ .pipelined = TRUE });
  begin (&f);
  answer_value (&f, 0);
  drive_event (f.drive, MI_EVENT_CANCEL);
  g_assert_false (f.drive->failed);
  drive_event (f.drive, MI_EVENT_LINK_LOST);
  drive_assert_done (f.drive);
  g_assert_true (mi_ota_saw_drop (f.drive->procedure));
  fixture_clear (&f);
}

/* At every step before the end command. */
static void
each_step (MiEventKind kind, MiError error, gboolean set_interval)
{
  for (guint n = 0; n < 9; n++)
    {
      Fixture f;

      fixture_init (&f, 640, 1, (MiOtaOptions){ .pipelined = TRUE, .set_interval = set_interval });
      drive_event (f.drive, MI_EVENT_START);
      for (guint i = 0; i < n; i++)
        if (g_str_equal (mi_procedure_get_state_name (f.drive->procedure), "set-interval"))
          drive_channel_event (f.drive, MI_EVENT_WRITTEN, MI_CHANNEL_INTERVAL, NULL, 0);
        else if (count_lines (f.drive, "r ") > 0)
          answer_value (&f, 0);
        else
          drive_tick (f.drive);
      if (!mi_ota_end_sent (f.drive->procedure))
        {
          drive_event (f.drive, kind);
          drive_assert_failed (f.drive, error);
        }
      else
        g_assert_cmpuint (n, >=, 6);
      fixture_clear (&f);
    }
}

static void
test_link_lost (void)
{
  each_step (MI_EVENT_LINK_LOST, MI_ERROR_LINK_LOST, FALSE);
  each_step (MI_EVENT_LINK_LOST, MI_ERROR_LINK_LOST, TRUE);
}

static void
test_cancel (void)
{
  each_step (MI_EVENT_CANCEL, MI_ERROR_CANCELLED, FALSE);
  each_step (MI_EVENT_CANCEL, MI_ERROR_CANCELLED, TRUE);
}

static void
test_interval_refused (void)
{
  Fixture f;

  fixture_init (&f, 100, 1, (MiOtaOptions){ .set_interval = TRUE });
  drive_event (f.drive, MI_EVENT_START);
  drive_channel_event (f.drive, MI_EVENT_IO_FAILED, MI_CHANNEL_INTERVAL, NULL, 0);
  drive_tick (f.drive);
  g_assert_cmpstr (last_line (f.drive), ==, "> 2b12 01ff");
  fixture_clear (&f);
}

static void
test_write_refused (void)
{
  Fixture f;

  fixture_init (&f, 100, 1, (MiOtaOptions){ .request = TRUE });
  drive_event (f.drive, MI_EVENT_START);
  drive_channel_event (f.drive, MI_EVENT_WRITTEN, MI_CHANNEL_OTA, NULL, 0);
  drive_channel_event (f.drive, MI_EVENT_WRITTEN, MI_CHANNEL_OTA, NULL, 0);
  drive_tick (f.drive);
  g_assert_cmpuint (f.drive->lines->len, ==, 3);
  drive_channel_event (f.drive, MI_EVENT_IO_FAILED, MI_CHANNEL_OTA, NULL, 0);
  drive_assert_failed (f.drive, MI_ERROR_IO);
  fixture_clear (&f);
}

/* An odd event is an error that names state and event, and comes once. */
static void
test_unexpected (void)
{
  Fixture f;

  fixture_init (&f, 100, 1, (MiOtaOptions){ .pipelined = TRUE });
  drive_event (f.drive, MI_EVENT_START);
  answer_value (&f, 0);
  drive_assert_failed (f.drive, MI_ERROR_PROTOCOL);
  g_assert_nonnull (strstr (f.drive->message, "value"));
  g_assert_nonnull (strstr (f.drive->message, "wait-erase"));
  drive_event (f.drive, MI_EVENT_CANCEL);
  g_assert_cmpuint (f.drive->effects.n, ==, 0);
  fixture_clear (&f);
}

static void
test_last_index (void)
{
  g_autofree guint8 *image = g_malloc0 (0xff00 * 16);
  MiOtaOptions options = { .pipelined = TRUE };
  g_autoptr (MiProcedure) procedure = mi_ota_new (image, 0xff00 * 16, &options);
  guint8 packet[MI_OTA_PACKET_LEN];

  g_assert_cmpuint (mi_ota_get_blocks (procedure), ==, 0xff00);
  mi_ota_packet (image, 0xff00 * 16, 0xfeff, packet);
  g_assert_cmphex (mi_get_u16 (packet), ==, 0xfeff);
  g_assert_cmphex (packet[17], ==, 0);
  g_assert_cmphex (mi_get_u16 (packet + 18), ==, mi_crc16_modbus (packet, 18));
}

int
main (int argc, char **argv)
{
  JsonArray *large;

  g_test_init (&argc, &argv, NULL);
  start_counting ();
  vectors = vectors_load ("ota_telink");
  large = json_object_get_array_member (vectors, "large");
  for (guint i = 0; i < json_array_get_length (large); i++)
    {
      JsonObject *vector = json_array_get_object_element (large, i);
      g_autofree char *path = g_strdup_printf ("/ota/vector/%d-bytes-same-stream-and-no-allocation",
                                               (int) json_object_get_int_member (vector, "size"));

      g_test_add_data_func (path, vector, test_large);
    }
  g_test_add_func ("/ota/allocations-are-counted", test_counter);
  g_test_add_func ("/ota/vector/checksums", test_crc);
  g_test_add_func ("/ota/vector/small-image", test_small);
  g_test_add_func ("/ota/vector/session", test_session);
  g_test_add_func ("/ota/read-of-a-window-while-the-next-is-written", test_pipelined);
  g_test_add_func ("/ota/read-value-is-a-result-code", test_bad_value);
  g_test_add_func ("/ota/notified-result-counts", test_result_notification);
  g_test_add_func ("/ota/unreadable-characteristic-fails", test_unreadable);
  g_test_add_func ("/ota/silent-barrier-ends-in-10-s", test_silent_barrier);
  g_test_add_func ("/ota/no-drop-is-done-after-10-s", test_no_drop);
  g_test_add_func ("/ota/cancel-after-the-end-is-ignored", test_cancel_after_end);
  g_test_add_func ("/ota/link-lost-before-the-end-fails", test_link_lost);
  g_test_add_func ("/ota/cancel-before-the-end-stops", test_cancel);
  g_test_add_func ("/ota/refused-interval-is-no-fault", test_interval_refused);
  g_test_add_func ("/ota/refused-write-request-fails", test_write_refused);
  g_test_add_func ("/ota/unexpected-event-fails-once", test_unexpected);
  g_test_add_func ("/ota/last-possible-index", test_last_index);
  return g_test_run ();
}
