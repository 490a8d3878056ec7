/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "drive.h"

#include "mi-bytes.h"
#include "mi-crypto.h"
#include "mi-dfu.h"
#include "mi-frame.h"

#include <string.h>

static JsonObject *vectors;

/**
 * Device:
 *
 * A scripted device: answers as protocol/ota-mible.md documents, keeps what it stored, and can be
 * told to be difficult. It takes the lines that the drive wrote down.
 */
typedef struct
{
  Drive *drive;
  MiSizes sizes; /* of the host */
  MiSizes own;   /* of the device */
  MiFrame *frame;
  MiEffects effects;
  guint seen; /* lines handled */
  guint16 protocol, size;
  guint16 index; /* stored before the start */
  guint32 crc;
  guint8 verify;                   /* status of command 4 */
  guint lose_fragment, lose_frame; /* once */
  guint lost;
  guint fail_fragment; /* status 5 for it this often */
  guint fail_times;
  gboolean event_first; /* event 2 before the acknowledgement */
  gboolean drop_ack;    /* the acknowledgement of messages never arrives */
  gboolean silent;
  GByteArray *stored;
  GArray *order; /* guint16: fragments handled */
} Device;

static void
notify (Device *self, guint16 channel, const guint8 *data, gsize len)
{
  g_autofree char *hex = mi_hex_encode (data, len);

  drive_receive (self->drive, channel, hex);
}

static void
reply (Device *self, guint16 code, guint8 status, const guint8 *result, gsize len)
{
  guint8 bytes[20] = { 1, (guint8) (3 + len) };

  mi_put_u16 (bytes + 2, code);
  bytes[4] = status;
  if (len > 0)
    memcpy (bytes + 5, result, len);
  notify (self, MI_CHANNEL_DFU_CONTROL, bytes, 5 + len);
}

static void
fragment_event (Device *self, guint16 index, guint8 status)
{
  guint8 bytes[5] = { 2, 3, status };

  mi_put_u16 (bytes + 3, index);
  notify (self, MI_CHANNEL_DFU_CONTROL, bytes, sizeof bytes);
}

static void
on_command (Device *self, const guint8 *data, gsize len)
{
  guint8 result[6];

  g_assert_cmpuint (len, ==, 3u + data[2]);
  if (self->silent)
    return;
  switch (mi_get_u16 (data))
    {
    case 1:
      mi_put_u16 (result, self->protocol);
      reply (self, 1, 0, result, 2);
      break;
    case 2:
      mi_put_u16 (result, self->size);
      reply (self, 2, 0, result, 2);
      break;
    case 3:
      mi_put_u16 (result, self->index);
      mi_put_u32 (result + 2, self->crc);
      reply (self, 3, 0, result, self->protocol == 1 ? 2 : 6);
      break;
    default:
      g_assert_cmpuint (mi_get_u16 (data), ==, 4);
      reply (self, 4, self->verify, NULL, 0);
    }
}

/* What the frame wants to send now; acknowledgements may be lost. */
static void
flush (Device *self)
{
  MiEffects now = self->effects;

  mi_effects_reset (&self->effects);
  for (guint i = 0; i < now.n; i++)
    {
      /* The copy's payloads still point into the original arena, which nobody touched yet. */
      if (self->drop_ack && now.items[i].data[3] == 0)
        continue;
      notify (self, now.items[i].channel, now.items[i].data, now.items[i].len);
    }
}

static void
on_message (Device *self, const guint8 *data, gsize len)
{
  guint16 index = mi_get_u16 (data);
  gsize offset = (gsize) (index - 1) * self->size;
  guint8 status = 0;

  g_array_append_val (self->order, index);
  if (index == self->fail_fragment && self->fail_times > 0)
    {
      self->fail_times--;
      status = 5;
    }
  else
    {
      if (self->stored->len < offset + len - 2)
        g_byte_array_set_size (self->stored, (guint) (offset + len - 2));
      memcpy (self->stored->data + offset, data + 2, len - 2);
    }
  mi_frame_expect (self->frame, MI_MESSAGE_PASS_THROUGH, MI_FRAME_MAX, self->drive->now_ms,
                   &self->effects);
  if (self->event_first)
    fragment_event (self, index, status);
  flush (self);
  if (!self->event_first)
    fragment_event (self, index, status);
}

static void
on_frame (Device *self, const guint8 *data, gsize len)
{
  MiFrameEvent event;
  guint running = self->order->len + self->index + 1;

  if (running == self->lose_fragment && len > 4 && mi_get_u16 (data) == self->lose_frame
      && self->lost++ == 0)
    return;
  event = mi_frame_feed (self->frame, data, len, self->drive->now_ms, &self->effects);
  if (event.kind == MI_FRAME_RECEIVED)
    {
      g_autofree guint8 *copy = g_memdup2 (event.data, event.len);

      on_message (self, copy, event.len);
    }
  else
    flush (self);
}

/* Handles every line that the host has written meanwhile. */
static void
pump (Device *self)
{
  while (self->seen < self->drive->lines->len)
    {
      const char *line = g_ptr_array_index (self->drive->lines, self->seen++);
      g_autofree guint8 *data = NULL;
      gsize len;

      if (line[0] != '>')
        continue;
      data = mi_hex_decode_alloc (line + 7, &len);
      if (g_str_has_prefix (line, "> 0017"))
        on_command (self, data, len);
      else
        on_frame (self, data, len);
    }
}

static void
device_init (Device *self, guint16 protocol, guint16 att, const guint8 *image, gsize len)
{
  memset (self, 0, sizeof *self);
  self->protocol = protocol;
  self->size = att > 20 && protocol == 2 ? 2048 : 512;
  self->sizes = (MiSizes) MI_SIZES_INIT (att);
  if (att > 20)
    {
      self->sizes.dmtu = att - 2;
      self->sizes.simul = 6;
    }
  self->own = protocol == 2 ? self->sizes : (MiSizes) MI_SIZES_INIT (20);
  self->frame = mi_frame_new (
      MI_CHANNEL_DFU_DATA, protocol == 1 ? MI_ROLE_DEVICE_GEN1 : MI_ROLE_DEVICE_GEN2, &self->own);
  mi_effects_reset (&self->effects);
  mi_frame_expect (self->frame, MI_MESSAGE_PASS_THROUGH, MI_FRAME_MAX, 0, &self->effects);
  self->stored = g_byte_array_new ();
  self->order = g_array_new (FALSE, FALSE, sizeof (guint16));
  self->drive = drive_new (mi_dfu_new (&self->sizes, image, len, 0));
}

static void
device_clear (Device *self)
{
  drive_free (self->drive);
  mi_frame_free (self->frame);
  g_byte_array_unref (self->stored);
  g_array_unref (self->order);
}

/* Runs until the host waits for nothing that this device would still send. */
static void
run (Device *self)
{
  drive_event (self->drive, MI_EVENT_START);
  pump (self);
}

static guint8 *
load_image (gsize *len)
{
  return vectors_bytes (vectors, "image", len);
}

static char *
hash_lines (Drive *drive)
{
  g_autoptr (GString) text = g_string_new (NULL);

  for (guint i = 0; i < drive->lines->len; i++)
    g_string_append_printf (text, "%s%s", i > 0 ? "\n" : "",
                            (char *) g_ptr_array_index (drive->lines, i));
  return g_compute_checksum_for_string (G_CHECKSUM_SHA256, text->str, -1);
}

static void
check_vector_outcome (JsonObject *vector, Device *device)
{
  JsonObject *outcome = json_object_get_object_member (vector, "outcome");
  MiProcedure *procedure = device->drive->procedure;
  JsonObject *value;

  if (g_str_equal (json_object_get_string_member (outcome, "result"), "failed"))
    {
      drive_assert_failed (device->drive, MI_ERROR_DFU);
      g_assert_nonnull (
          strstr (device->drive->message, json_object_get_string_member (outcome, "detail")));
      g_assert_false (mi_dfu_verified (procedure));
      g_assert_cmpuint (mi_dfu_get_status (procedure), ==, device->verify);
      return;
    }
  g_assert_cmpuint (device->drive->disconnects, ==, 1);
  g_assert_false (device->drive->done);
  drive_event (device->drive, MI_EVENT_LINK_LOST);
  drive_assert_done (device->drive);
  g_assert_true (mi_dfu_verified (procedure));
  value = json_object_get_object_member (outcome, "value");
  g_assert_cmpint (mi_dfu_get_fragments (procedure), ==,
                   json_object_get_int_member (value, "fragments"));
  g_assert_cmpint (mi_dfu_get_first (procedure), ==, json_object_get_int_member (value, "first"));
  g_assert_cmpint (mi_dfu_get_protocol (procedure), ==,
                   json_object_get_int_member (value, "protocol"));
}

static void
test_vector (gconstpointer data)
{
  JsonObject *vector = (JsonObject *) data;
  const char *name = json_object_get_string_member (vector, "name");
  guint16 protocol = (guint16) json_object_get_int_member (vector, "protocol");
  gsize len;
  g_autofree guint8 *image = load_image (&len);
  g_autofree char *hash = NULL;
  Device device;

  if (g_str_equal (name, "no tag"))
    len = 4100; /* the image without what was appended */
  if (g_str_equal (name, "changed image"))
    image[200] ^= 1;
  device_init (&device, protocol, strstr (name, "244-byte") != NULL ? 244 : 20, image, len);
  if (g_str_equal (name, "wrong product id") || g_str_equal (name, "changed image"))
    device.verify = 2;
  if (g_str_equal (name, "no tag"))
    device.verify = 6;
  if (g_str_equal (name, "protocol 2, fragment of the transfer lost"))
    {
      device.lose_fragment = 2;
      device.lose_frame = 7;
    }
  if (g_str_equal (name, "protocol 2, resumed after a lost link"))
    {
      device.index = 4;
      device.crc = mi_crc32 (0xffffffff, image, 2048) ^ 0xffffffff;
      g_byte_array_append (device.stored, image, 2048);
    }
  run (&device);
  g_assert_cmpint (device.drive->lines->len, ==, json_object_get_int_member (vector, "wire_lines"));
  hash = hash_lines (device.drive);
  g_assert_cmpstr (hash, ==, json_object_get_string_member (vector, "wire_sha256"));
  check_vector_outcome (vector, &device);
  g_assert_cmpint (device.order->len, ==, json_object_get_int_member (vector, "fragments_written"));
  g_assert_cmpmem (device.stored->data, device.stored->len, image, len);
  device_clear (&device);
}

/* --- deviations ---------------------------------------------------------------------------------
 */

static void
test_other_record (void)
{
  gsize len;
  g_autofree guint8 *image = load_image (&len);
  Device device;

  /* The device's record is of another image, or complete: from the start. */
  for (guint k = 0; k < 2; k++)
    {
      device_init (&device, 2, 20, image, len);
      device.index = k == 0 ? 4 : 11;
      device.crc = k == 0 ? 0x12345678 : mi_crc32 (0xffffffff, image, len) ^ 0xffffffff;
      run (&device);
      g_assert_cmpuint (mi_dfu_get_first (device.drive->procedure), ==, 1);
      g_assert_cmpuint (device.order->len, ==, 11);
      device_clear (&device);
    }
}

static void
test_repeat (void)
{
  gsize len;
  g_autofree guint8 *image = load_image (&len);
  Device device;

  device_init (&device, 2, 20, image, len);
  device.fail_fragment = 3;
  device.fail_times = 3;
  run (&device);
  g_assert_cmpuint (device.order->len, ==, 14);
  g_assert_cmpmem (device.stored->data, device.stored->len, image, len);
  drive_event (device.drive, MI_EVENT_LINK_LOST);
  drive_assert_done (device.drive);
  device_clear (&device);

  device_init (&device, 2, 20, image, len);
  device.fail_fragment = 3;
  device.fail_times = 4;
  run (&device);
  drive_assert_failed (device.drive, MI_ERROR_DFU);
  g_assert_cmpuint (mi_dfu_get_status (device.drive->procedure), ==, 5);
  g_assert_cmpuint (device.order->len, ==, 6);
  device_clear (&device);
}

static void
test_event_overtakes (void)
{
  gsize len;
  g_autofree guint8 *image = load_image (&len);
  Device device;

  device_init (&device, 2, 20, image, len);
  device.event_first = TRUE;
  run (&device);
  drive_event (device.drive, MI_EVENT_LINK_LOST);
  drive_assert_done (device.drive);
  g_assert_cmpmem (device.stored->data, device.stored->len, image, len);
  device_clear (&device);

  /* Without any acknowledgement the event counts after 400 ms. */
  device_init (&device, 2, 244, image, len);
  device.event_first = TRUE;
  device.drop_ack = TRUE;
  run (&device);
  for (guint i = 0; i < 3; i++)
    {
      gint64 start = device.drive->now_ms;

      g_assert_cmpuint (device.order->len, ==, i + 1);
      drive_tick (device.drive);
      g_assert_cmpint (device.drive->now_ms - start, <=, 400);
      pump (&device);
    }
  drive_event (device.drive, MI_EVENT_LINK_LOST);
  drive_assert_done (device.drive);
  device_clear (&device);
}

/* The receiver gives up (TIMEOUT, then status 7 without a new index): the fragment is repeated. */
static void
test_receiver_gave_up (void)
{
  gsize len;
  g_autofree guint8 *image = load_image (&len);
  Device device;

  device_init (&device, 2, 20, image, len);
  drive_event (device.drive, MI_EVENT_START);
  drive_receive (device.drive, MI_CHANNEL_DFU_CONTROL, "01050100000200");
  drive_receive (device.drive, MI_CHANNEL_DFU_CONTROL, "01050200000002");
  drive_receive (device.drive, MI_CHANNEL_DFU_CONTROL, "0109030000000000000000");
  drive_receive (device.drive, MI_CHANNEL_DFU_DATA, "00000101");
  drive_receive (device.drive, MI_CHANNEL_DFU_DATA, "00000103");
  g_assert_false (device.drive->failed);
  device.seen = device.drive->lines->len;
  drive_receive (device.drive, MI_CHANNEL_DFU_CONTROL, "0203070000");
  g_assert_cmpstr (g_ptr_array_index (device.drive->lines, device.drive->lines->len - 1), ==,
                   "> 0018 000000001d00");
  pump (&device);
  drive_event (device.drive, MI_EVENT_LINK_LOST);
  drive_assert_done (device.drive);
  device_clear (&device);
}

static void
test_protocol_unknown (void)
{
  static const guint8 image[600];
  Device device;

  device_init (&device, 3, 20, image, sizeof image);
  run (&device);
  drive_assert_failed (device.drive, MI_ERROR_UNSUPPORTED);
  device_clear (&device);
}

static void
test_low_battery (void)
{
  static const guint8 image[600];
  Device device;

  device_init (&device, 2, 20, image, sizeof image);
  drive_event (device.drive, MI_EVENT_START);
  drive_receive (device.drive, MI_CHANNEL_DFU_CONTROL, "01050100000200");
  drive_receive (device.drive, MI_CHANNEL_DFU_CONTROL, "01050200080002");
  drive_assert_failed (device.drive, MI_ERROR_DFU);
  g_assert_nonnull (strstr (device.drive->message, "command 2 status 8 (low battery)"));
  device_clear (&device);
}

/* Frame 2 of fragment 2 holds the fill byte only. */
static void
test_fill_run (void)
{
  g_autofree guint8 *image = g_malloc0 (6000);
  Device device;

  memset (image + 512 + 16, 0xa5, 18);
  device_init (&device, 2, 20, image, 6000);
  run (&device);
  drive_assert_failed (device.drive, MI_ERROR_UNSUPPORTED);
  g_assert_nonnull (strstr (device.drive->message, "fragment 2"));
  g_assert_null (strstr (device.drive->message, "exploration"));
  g_assert_cmpuint (device.order->len, ==, 0);
  device_clear (&device);

  /* With larger frames it is none; one that could explore is told so. */
  device_init (&device, 2, 244, image, 6000);
  run (&device);
  g_assert_cmpuint (device.order->len, ==, 3);
  device_clear (&device);
  device_init (&device, 2, 20, image, 6000);
  device.sizes.att_payload = 244;
  run (&device);
  drive_assert_failed (device.drive, MI_ERROR_UNSUPPORTED);
  g_assert_nonnull (strstr (device.drive->message, "after a size exploration"));
  device_clear (&device);

  /* One byte less, or in a last frame: harmless. */
  image[512 + 16] = 0;
  device_init (&device, 2, 20, image, 6000);
  run (&device);
  g_assert_cmpuint (device.order->len, ==, 12);
  device_clear (&device);
  memset (image, 0, 6000);
  memset (image + 512 - 10, 0xa5, 10); /* 514 bytes: the last frame has 10 */
  device_init (&device, 1, 20, image, 6000);
  run (&device);
  g_assert_cmpuint (device.order->len, ==, 12);
  device_clear (&device);
}

/* Protocol 1 ignores what was negotiated. */
static void
test_protocol_1_keeps_18 (void)
{
  gsize len;
  g_autofree guint8 *image = load_image (&len);
  Device device;

  device_init (&device, 1, 244, image, len);
  run (&device);
  g_assert_cmpstr (g_ptr_array_index (device.drive->lines, 6), ==, "> 0018 000000001d00");
  g_assert_cmpmem (device.stored->data, device.stored->len, image, len);
  g_assert_cmpuint (device.sizes.dmtu, ==, 242);
  device_clear (&device);
}

static const char *const script[] = {
  "17 01050100000200", "17 01050200000002",         "17 0109030000000000000000",
  "18 00000101",       /* READY */ "18 00000100",   "17 0203000100",
  "18 00000101",       /* the 2nd */ "18 00000100", "17 0203000200",
  "17 0103040000",
};

static void
play (Device *device, guint n)
{
  static guint8 image[600];

  device_init (device, 2, 20, image, sizeof image);
  drive_event (device->drive, MI_EVENT_START);
  for (guint i = 0; i < n; i++)
    drive_receive (device->drive, (guint16) g_ascii_strtoull (script[i], NULL, 16), script[i] + 3);
}

static void
test_silence (void)
{
  static const char *const names[]
      = { "ask-version", "ask-size",      "ask-index",     "send-fragment", "send-fragment",
          "wait-stored", "send-fragment", "send-fragment", "wait-stored",   "verify" };

  for (guint n = 0; n < G_N_ELEMENTS (script); n++)
    {
      Device device;
      gint64 took;

      play (&device, n);
      g_assert_cmpstr (mi_procedure_get_state_name (device.drive->procedure), ==, names[n]);
      took = drive_wait_end (device.drive, 30000);
      g_assert_cmpint (took, ==, n == 9 ? 30000 : 10000);
      drive_assert_failed (device.drive, MI_ERROR_TIMEOUT);
      device_clear (&device);
    }
}

static void
each_cut (MiEventKind kind, MiError error)
{
  for (guint n = 0; n < G_N_ELEMENTS (script); n++)
    {
      Device device;

      play (&device, n);
      drive_event (device.drive, kind);
      drive_assert_failed (device.drive, error);
      device_clear (&device);
    }
}

static void
test_cancel (void)
{
  each_cut (MI_EVENT_CANCEL, MI_ERROR_CANCELLED);
}

static void
test_link_lost (void)
{
  each_cut (MI_EVENT_LINK_LOST, MI_ERROR_LINK_LOST);
}

static void
test_malformed (void)
{
  static const char *const events[]
      = { "",           "01",     "0105",     "010501000002", "0102010000",
          "0304010000", "020300", "02030001", "020200010000" };

  for (guint n = 0; n < G_N_ELEMENTS (script); n++)
    for (guint k = 0; k < G_N_ELEMENTS (events); k++)
      {
        Device device;

        play (&device, n);
        drive_receive (device.drive, MI_CHANNEL_DFU_CONTROL, events[k]);
        drive_assert_failed (device.drive, MI_ERROR_PROTOCOL);
        device_clear (&device);
      }
}

/* Everything twice: no harm. */
static void
test_doubled (void)
{
  Device device;

  play (&device, 0);
  for (guint i = 0; i < G_N_ELEMENTS (script); i++)
    for (guint k = 0; k < 2; k++)
      drive_receive (device.drive, (guint16) g_ascii_strtoull (script[i], NULL, 16), script[i] + 3);
  drive_event (device.drive, MI_EVENT_LINK_LOST);
  drive_assert_done (device.drive);
  device_clear (&device);
}

static void
test_no_disconnect (void)
{
  Device device;

  play (&device, G_N_ELEMENTS (script));
  g_assert_cmpuint (device.drive->disconnects, ==, 1);
  g_assert_cmpint (drive_wait_end (device.drive, 10000), ==, 10000);
  drive_assert_done (device.drive);
  device_clear (&device);
}

static void
test_odd_results (void)
{
  static const struct
  {
    guint after;
    const char *event;
  } table[] = {
    { 0, "0103010000" },     /* no version */
    { 1, "01050200000000" }, /* fragments of 0 bytes */
    { 1, "01050200000108" }, /* fragments of 2049 bytes */
    { 2, "01050300000000" }, /* no CRC in protocol 2 */
    { 0, "01050200000002" }, /* reply to a command not sent */
    { 5, "0203000200" },     /* another fragment */
  };

  for (guint i = 0; i < G_N_ELEMENTS (table); i++)
    {
      Device device;

      play (&device, table[i].after);
      drive_receive (device.drive, MI_CHANNEL_DFU_CONTROL, table[i].event);
      drive_assert_failed (device.drive, MI_ERROR_PROTOCOL);
      device_clear (&device);
    }
}

int
main (int argc, char **argv)
{
  JsonArray *cases;

  g_test_init (&argc, &argv, NULL);
  vectors = vectors_load ("ota_mible");
  cases = json_object_get_array_member (vectors, "cases");
  for (guint i = 0; i < json_array_get_length (cases); i++)
    {
      JsonObject *vector = json_array_get_object_element (cases, i);
      g_autofree char *path
          = vectors_path ("/dfu/vector", json_object_get_string_member (vector, "name"));

      g_test_add_data_func (path, vector, test_vector);
    }
  g_test_add_func ("/dfu/record-of-another-image-starts-over", test_other_record);
  g_test_add_func ("/dfu/refused-fragment-is-repeated-three-times", test_repeat);
  g_test_add_func ("/dfu/event-before-acknowledgement-is-held", test_event_overtakes);
  g_test_add_func ("/dfu/receiver-gave-up-is-repeated", test_receiver_gave_up);
  g_test_add_func ("/dfu/unknown-protocol-is-refused", test_protocol_unknown);
  g_test_add_func ("/dfu/low-battery-ends", test_low_battery);
  g_test_add_func ("/dfu/frame-of-fill-bytes-is-refused", test_fill_run);
  g_test_add_func ("/dfu/protocol-1-keeps-18", test_protocol_1_keeps_18);
  g_test_add_func ("/dfu/silence-in-each-state-ends", test_silence);
  g_test_add_func ("/dfu/cancel-in-each-state", test_cancel);
  g_test_add_func ("/dfu/link-lost-in-each-state", test_link_lost);
  g_test_add_func ("/dfu/malformed-event-fails", test_malformed);
  g_test_add_func ("/dfu/odd-results-fail", test_odd_results);
  g_test_add_func ("/dfu/doubled-notifications-do-no-harm", test_doubled);
  g_test_add_func ("/dfu/missing-disconnection-is-done-after-10-s", test_no_disconnect);
  return g_test_run ();
}
