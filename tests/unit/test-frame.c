/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "mi-bytes.h"
#include "mi-frame.h"
#include "vectors.h"

#include <string.h>

/* Vectors: the codec */

static void
test_codec (gconstpointer data)
{
  JsonObject *object = (JsonObject *) data;
  gsize len, body_len;
  g_autofree guint8 *frame = vectors_bytes (object, "hex", &len);
  g_autofree guint8 *body = NULL;
  MiFrameView view = { 0 };

  if (!json_object_get_boolean_member (object, "valid"))
    {
      g_assert_false (mi_frame_decode (frame, len, &view));
      return;
    }
  g_assert_true (mi_frame_decode (frame, len, &view));
  g_assert_cmpuint (view.sn, ==, json_object_get_int_member (object, "sn"));
  body = vectors_bytes (object, view.sn > 0 ? "payload" : "body", &body_len);
  g_assert_cmpmem (view.body, view.len, body, body_len);
  if (view.sn > 0)
    return;
  g_assert_cmpuint (view.mode, ==, json_object_get_int_member (object, "mode"));
  g_assert_cmpuint (view.type, ==, json_object_get_int_member (object, "type"));
  if (json_object_has_member (object, "count"))
    g_assert_cmpuint (view.count, ==, json_object_get_int_member (object, "count"));
  if (json_object_has_member (object, "lost"))
    {
      JsonArray *lost = json_object_get_array_member (object, "lost");

      g_assert_cmpuint (view.len, ==, 2 * json_array_get_length (lost));
      for (guint i = 0; i < json_array_get_length (lost); i++)
        g_assert_cmpuint (mi_get_u16 (view.body + 2 * i), ==, json_array_get_int_element (lost, i));
    }
}

/* One side under test: what it writes is taken from the effects. */

typedef struct
{
  MiSizes sizes;
  MiFrame *frame;
  MiEffects *effects;
  MiFrameEvent event;
  gint64 now_ms;
} Side;

static void
side_init (Side *side, MiFrameRole role, guint16 dmtu, guint8 simul)
{
  memset (side, 0, sizeof *side);
  side->sizes = (MiSizes){ dmtu + 2, dmtu, simul, FALSE };
  side->frame = mi_frame_new (MI_CHANNEL_AUTH, role, &side->sizes);
  side->effects = g_new0 (MiEffects, 1);
  side->now_ms = 1000000;
}

static void
side_clear (Side *side)
{
  mi_frame_free (side->frame);
  g_free (side->effects);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Side, side_clear)

static void
side_feed (Side *side, const guint8 *data, gsize len)
{
  /* An exact copy, so that a read past the end is seen. */
  g_autofree guint8 *copy = g_memdup2 (data, len);

  mi_effects_reset (side->effects);
  side->event = mi_frame_feed (side->frame, copy, len, side->now_ms, side->effects);
}

static void
side_feed_hex (Side *side, const char *hex)
{
  gsize len;
  g_autofree guint8 *data = vectors_hex (hex, &len);

  side_feed (side, data, len);
}

/* Moves the clock to the next deadline within @ms, if there is one; at most one event. */
static void
side_wait (Side *side, gint64 ms)
{
  gint64 end = side->now_ms + ms;

  mi_effects_reset (side->effects);
  side->event = (MiFrameEvent){ MI_FRAME_NOTHING };
  while (side->event.kind == MI_FRAME_NOTHING)
    {
      gint64 deadline = mi_frame_deadline (side->frame);

      if (deadline < 0 || deadline > end)
        break;
      side->now_ms = MAX (side->now_ms, deadline);
      side->event = mi_frame_tick (side->frame, side->now_ms, side->effects);
    }
  side->now_ms = end;
}

static void
side_expect (Side *side, guint8 type, gsize max)
{
  mi_effects_reset (side->effects);
  side->event = mi_frame_expect (side->frame, type, max, side->now_ms, side->effects);
}

static void
side_send (Side *side, guint8 type, const guint8 *data, gsize len)
{
  mi_effects_reset (side->effects);
  side->event = (MiFrameEvent){ MI_FRAME_NOTHING };
  g_assert_true (mi_frame_send (side->frame, type, data, len, side->now_ms, side->effects));
}

/* What was written, frames in hex with commas. */
static char *
side_written (Side *side)
{
  GString *out = g_string_new (NULL);

  g_assert_false (side->effects->overflow);
  for (guint i = 0; i < side->effects->n; i++)
    {
      const MiEffect *effect = &side->effects->items[i];
      g_autofree char *hex = mi_hex_encode (effect->data, effect->len);

      g_assert_cmpint (effect->kind, ==, MI_EFFECT_WRITE);
      g_assert_cmphex (effect->channel, ==, MI_CHANNEL_AUTH);
      g_string_append_printf (out, "%s%s", i > 0 ? "," : "", hex);
    }
  return g_string_free (out, FALSE);
}

#define assert_written(side, want)                                                                 \
  G_STMT_START                                                                                     \
  {                                                                                                \
    g_autofree char *written = side_written (side);                                                \
    g_assert_cmpstr (written, ==, want);                                                           \
  }                                                                                                \
  G_STMT_END

/* Vectors: splitting */

static void
test_split (gconstpointer data)
{
  JsonObject *object = (JsonObject *) data;
  guint length = (guint) json_object_get_int_member (object, "length");
  guint count = (guint) json_object_get_int_member (object, "fragments");
  g_autoptr (GChecksum) sum = g_checksum_new (G_CHECKSUM_SHA256);
  g_autofree guint8 *payload = g_malloc (length);
  g_autofree char *first = NULL;
  g_autofree char *last = NULL;
  g_auto (Side) side;

  side_init (&side, MI_ROLE_HOST, (guint16) json_object_get_int_member (object, "dmtu"), 1);
  for (guint i = 0; i < length; i++)
    payload[i] = (guint8) (i * 3 + length);
  side_send (&side, MI_MESSAGE_PASS_THROUGH, payload, length);
  g_assert_cmpuint (mi_get_u16 (side.effects->items[0].data + 4), ==, count);
  side_feed_hex (&side, "00000101");
  g_assert_cmpuint (side.effects->n, ==, count);
  for (guint i = 0; i < count; i++)
    g_checksum_update (sum, side.effects->items[i].data, side.effects->items[i].len);
  g_assert_cmpuint (side.effects->items[count - 1].len, ==,
                    2 + json_object_get_int_member (object, "last_length"));
  first = mi_hex_encode (side.effects->items[0].data, side.effects->items[0].len);
  last = mi_hex_encode (side.effects->items[count - 1].data, side.effects->items[count - 1].len);
  /* The larger sizes have a checksum only. */
  if (!json_object_get_null_member (object, "first"))
    {
      g_assert_cmpstr (first, ==, json_object_get_string_member (object, "first"));
      g_assert_cmpstr (last, ==, json_object_get_string_member (object, "last"));
    }
  g_assert_cmpstr (g_checksum_get_string (sum), ==,
                   json_object_get_string_member (object, "sha256"));
}

/* Vectors: transfers */

/* An event as the vectors write it: its fields with blanks. */
static char *
event_text (const MiFrameEvent *event)
{
  g_autofree char *hex = NULL;

  switch (event->kind)
    {
    case MI_FRAME_NOTHING:
      return g_strdup ("");
    case MI_FRAME_SENT:
      return g_strdup_printf ("sent %u", event->type);
    case MI_FRAME_RECEIVED:
      hex = mi_hex_encode (event->data, event->len);
      return g_strdup_printf ("received %u %s", event->type, hex);
    case MI_FRAME_TX_FAILED:
      return g_strdup_printf ("tx-failed %u %s", event->type, event->reason);
    case MI_FRAME_RX_FAILED:
      return g_strdup_printf ("rx-failed %u %s", event->type, event->reason);
    case MI_FRAME_MALFORMED:
      return g_strdup ("malformed");
    case MI_FRAME_EXPLORED:
    default:
      return g_strdup ("explored");
    }
}

static char *
wanted_event (JsonObject *step)
{
  JsonArray *events, *event;
  GString *out;

  if (!json_object_has_member (step, "events"))
    return g_strdup ("");
  events = json_object_get_array_member (step, "events");
  g_assert_cmpuint (json_array_get_length (events), ==, 1);
  event = json_array_get_array_element (events, 0);
  out = g_string_new (json_array_get_string_element (event, 0));
  /* A malformed frame is told without its bytes. */
  for (guint i = 1; i < json_array_get_length (event) && strcmp (out->str, "malformed") != 0; i++)
    {
      JsonNode *field = json_array_get_element (event, i);

      if (json_node_get_value_type (field) == G_TYPE_STRING)
        g_string_append_printf (out, " %s", json_node_get_string (field));
      else
        g_string_append_printf (out, " %" G_GINT64_FORMAT, json_node_get_int (field));
    }
  return g_string_free (out, FALSE);
}

static char *
wanted_frames (JsonObject *step)
{
  JsonArray *frames = json_object_get_array_member (step, "out");
  GString *out = g_string_new (NULL);

  for (guint i = 0; i < json_array_get_length (frames); i++)
    g_string_append_printf (out, "%s%s", i > 0 ? "," : "",
                            json_array_get_string_element (frames, i));
  return g_string_free (out, FALSE);
}

static void
run_step (Side *side, JsonObject *step)
{
  const char *what = json_object_get_string_member (step, "do");
  g_autofree guint8 *bytes = NULL;
  gsize len;

  if (strcmp (what, "send") == 0)
    {
      bytes = vectors_bytes (step, "payload", &len);
      side_send (side, (guint8) json_object_get_int_member (step, "type"), bytes, len);
    }
  else if (strcmp (what, "expect") == 0)
    side_expect (side, (guint8) json_object_get_int_member (step, "type"),
                 (gsize) json_object_get_int_member (step, "max"));
  else if (strcmp (what, "frame") == 0)
    side_feed_hex (side, json_object_get_string_member (step, "in"));
  else if (strcmp (what, "time") == 0)
    side_wait (side, json_object_get_int_member (step, "ms"));
  else
    g_assert_not_reached ();
}

static void
assert_final (Side *side, JsonObject *final)
{
  const char *state = json_object_get_string_member (final, "state");

  g_assert_cmpuint (side->sizes.dmtu, ==, json_object_get_int_member (final, "dmtu"));
  g_assert_cmpuint (side->sizes.simul, ==, json_object_get_int_member (final, "simul"));
  g_assert_cmpint (mi_frame_is_receiving (side->frame), ==, strcmp (state, "rxd") == 0);
  g_assert_false (mi_frame_is_sending (side->frame));
  g_assert_cmpint (mi_frame_is_idle (side->frame), ==, strcmp (state, "idle") == 0);
}

static MiFrameRole
role_of (JsonObject *object)
{
  if (strcmp (json_object_get_string_member (object, "role"), "host") == 0)
    return MI_ROLE_HOST;
  return json_object_get_int_member (object, "generation") == 1 ? MI_ROLE_DEVICE_GEN1
                                                                : MI_ROLE_DEVICE_GEN2;
}

static void
test_transfer (gconstpointer data)
{
  JsonObject *object = (JsonObject *) data;
  JsonArray *steps = json_object_get_array_member (object, "steps");
  g_auto (Side) side;

  side_init (&side, role_of (object), (guint16) json_object_get_int_member (object, "dmtu"),
             (guint8) json_object_get_int_member (object, "simul"));
  /* The vectors name the option in the case's title only. */
  mi_frame_set_fill_quirk (
      side.frame, strstr (json_object_get_string_member (object, "name"), "fill quirk") != NULL);
  for (guint i = 0; i < json_array_get_length (steps); i++)
    {
      JsonObject *step = json_array_get_object_element (steps, i);
      g_autofree char *want_event = wanted_event (step);
      g_autofree char *want_frames = wanted_frames (step);
      g_autofree char *event = NULL;
      g_autofree char *frames = NULL;

      run_step (&side, step);
      event = event_text (&side.event);
      frames = side_written (&side);
      g_assert_cmpstr (frames, ==, want_frames);
      g_assert_cmpstr (event, ==, want_event);
    }
  assert_final (&side, json_object_get_object_member (object, "final"));
}

/* Vectors: exploration. A host and a device talk; line @lost of the wire does not arrive. */

typedef struct
{
  Side host;
  Side device;
  GPtrArray *wire;
  gint lost;
} Pair;

static void
pair_put (Pair *pair, char direction, const char *channel, const guint8 *data, gsize len)
{
  g_autofree char *hex = mi_hex_encode (data, len);

  g_ptr_array_add (pair->wire, g_strdup_printf ("%c %s %s", direction, channel, hex));
}

/* Carries what @from has written over to @to, and the answers back, until nobody says any more. */
static void
pair_carry (Pair *pair, Side *from, Side *to)
{
  g_autofree MiEffects *sent = g_memdup2 (from->effects, sizeof *from->effects);

  for (guint i = 0; i < sent->n; i++)
    {
      const guint8 *data = sent->arena + (sent->items[i].data - from->effects->arena);

      pair_put (pair, from == &pair->host ? '>' : '<', "0019", data, sent->items[i].len);
      if ((gint) pair->wire->len - 1 == pair->lost)
        continue;
      side_feed (to, data, sent->items[i].len);
      pair_carry (pair, to, from);
    }
}

static void
assert_sizes (const Side *side, JsonObject *want)
{
  g_assert_cmpuint (side->sizes.dmtu, ==, json_object_get_int_member (want, "dmtu"));
  g_assert_cmpuint (side->sizes.simul, ==, json_object_get_int_member (want, "simul"));
}

static void
test_exploration (gconstpointer data)
{
  JsonObject *object = (JsonObject *) data;
  const char *name = json_object_get_string_member (object, "name");
  JsonArray *want = json_object_get_array_member (object, "wire");
  Pair pair = { .lost = -1, .wire = g_ptr_array_new_with_free_func (g_free) };

  side_init (&pair.host, MI_ROLE_HOST, 18, 1);
  side_init (&pair.device, MI_ROLE_DEVICE_GEN2, 18, 1);
  pair.host.sizes.att_payload = (guint16) json_object_get_int_member (object, "host_att_payload");
  pair.device.sizes.att_payload
      = (guint16) json_object_get_int_member (object, "device_att_payload");
  if (strcmp (name, "length frame lost") == 0)
    pair.lost = 3;
  else if (strcmp (name, "reply lost") == 0)
    pair.lost = 4;

  pair_put (&pair, '>', "0010", (const guint8 *) "\xa4", 1);
  mi_effects_reset (pair.host.effects);
  mi_frame_explore (pair.host.frame, pair.host.now_ms, pair.host.effects);
  g_assert_cmpuint (pair.host.effects->n, ==, 0);
  g_assert_false (mi_frame_is_idle (pair.host.frame));
  mi_effects_reset (pair.device.effects);
  mi_frame_explore (pair.device.frame, pair.device.now_ms, pair.device.effects);
  pair_carry (&pair, &pair.device, &pair.host);
  side_wait (&pair.device, 2000);
  side_wait (&pair.host, 2000);

  /* The vectors leave out the lost length frame itself. */
  if (pair.lost == 3)
    g_ptr_array_remove_index (pair.wire, 3);
  g_assert_cmpuint (pair.wire->len, ==, json_array_get_length (want));
  for (guint i = 0; i < pair.wire->len; i++)
    g_assert_cmpstr (pair.wire->pdata[i], ==, json_array_get_string_element (want, i));
  assert_sizes (&pair.device, json_object_get_object_member (object, "device"));
  assert_sizes (&pair.host, json_object_get_object_member (object, "host"));
  g_assert_true (pair.host.sizes.explored);
  g_assert_true (mi_frame_is_idle (pair.host.frame));
  g_assert_true (mi_frame_is_idle (pair.device.frame));
  g_ptr_array_unref (pair.wire);
  side_clear (&pair.host);
  side_clear (&pair.device);
}

/* Further rules of protocol/framing.md, by section */

static const guint8 digits[64] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+/";

static void
test_too_short_or_too_long_to_send (void)
{
  static const guint8 long_one[MI_FRAME_MAX + 1];
  g_auto (Side) side;

  side_init (&side, MI_ROLE_HOST, 18, 1);
  g_assert_false (mi_frame_send (side.frame, 0, long_one, 0, 0, side.effects));
  g_assert_false (mi_frame_send (side.frame, 0, long_one, sizeof long_one, 0, side.effects));
  g_assert_true (mi_frame_send (side.frame, 0, long_one, MI_FRAME_MAX, 0, side.effects));
  g_assert_false (mi_frame_send (side.frame, 0, long_one, 4, 0, side.effects));
  side_feed_hex (&side, "00000101");
  g_assert_false (side.effects->overflow);
  g_assert_cmpuint (side.effects->n, ==, 114);
}

/* Section 2: the certificate is announced even where it would fit one frame, because of the device.
 */
static void
test_single_certificate_is_ignored (void)
{
  g_auto (Side) side;

  side_init (&side, MI_ROLE_DEVICE_GEN2, 242, 6);
  side_expect (&side, MI_MESSAGE_SERVER_CERTIFICATE, 512);
  side_feed_hex (&side, "00000207aabbcc");
  g_assert_cmpuint (side.effects->n, ==, 0);
  g_assert_cmpint (side.event.kind, ==, MI_FRAME_NOTHING);
  side_feed_hex (&side, "000000070200");
  assert_written (&side, "00000101");
}

static void
test_announce_only (void)
{
  g_auto (Side) side;

  side_init (&side, MI_ROLE_HOST, 242, 6);
  mi_frame_set_announce_only (side.frame, TRUE);
  side_send (&side, MI_MESSAGE_APP_RANDOM, digits, 16);
  assert_written (&side, "0000000b0100");
}

static void
test_gen1_knows_no_single_frames (void)
{
  g_auto (Side) side;

  side_init (&side, MI_ROLE_DEVICE_GEN1, 18, 6);
  side_send (&side, MI_MESSAGE_DEVICE_RANDOM, digits, 16);
  assert_written (&side, "0000000d0100");
  mi_frame_reset (side.frame);
  side_expect (&side, MI_MESSAGE_APP_RANDOM, 16);
  side_feed_hex (&side, "0000020b11111111");
  g_assert_cmpint (side.event.kind, ==, MI_FRAME_NOTHING);
  assert_written (&side, "");
  mi_effects_reset (side.effects);
  mi_frame_explore (side.frame, side.now_ms, side.effects);
  assert_written (&side, "");
  g_assert_true (mi_frame_is_idle (side.frame));
}

/* The web flasher's acknowledgement of a single frame (section 2). */
static void
test_single_is_acknowledged_by_the_other_mode (void)
{
  g_auto (Side) side;

  side_init (&side, MI_ROLE_DEVICE_GEN2, 242, 6);
  side_send (&side, MI_MESSAGE_PASS_THROUGH, digits, 24);
  side_feed_hex (&side, "00000100");
  g_assert_cmpint (side.event.kind, ==, MI_FRAME_SENT);
}

static void
test_gen2_sends_a_single_frame_again (void)
{
  g_auto (Side) side;

  side_init (&side, MI_ROLE_DEVICE_GEN2, 18, 6);
  side_send (&side, MI_MESSAGE_DEVICE_RANDOM, digits, 4);
  assert_written (&side, "0000020d30313233");
  side_feed_hex (&side, "00000302");
  assert_written (&side, "0000020d30313233");
  side_feed_hex (&side, "00000304");
  assert_written (&side, "0000020d30313233");
  side_feed_hex (&side, "00000303");
  assert_written (&side, "");
  side_feed_hex (&side, "00000300");
  g_assert_cmpint (side.event.kind, ==, MI_FRAME_SENT);
}

static void
assert_tx_failed (Side *side, const char *reason)
{
  g_assert_cmpint (side->event.kind, ==, MI_FRAME_TX_FAILED);
  g_assert_cmpuint (side->event.type, ==, MI_MESSAGE_PUBLIC_KEY);
  g_assert_cmpstr (side->event.reason, ==, reason);
  g_assert_true (mi_frame_is_idle (side->frame));
  g_assert_cmpint (mi_frame_deadline (side->frame), ==, -1);
}

static void
test_host_fails_on_wrong_acks (void)
{
  static const struct
  {
    const char *ack;
    gboolean fragments; /* after the fragments, else instead of READY */
    const char *reason;
  } cases[] = {
    { "00000100", FALSE, "unexpected acknowledgement" },
    { "000001050100", FALSE, "unexpected acknowledgement" },
    { "00000103", FALSE, "timeout" },
    { "00000109", FALSE, "unexpected acknowledgement" },
    { "00000102", TRUE, "busy" },
    { "00000104", TRUE, "cancelled" },
  };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++)
    {
      g_auto (Side) side;

      side_init (&side, MI_ROLE_HOST, 18, 1);
      side_send (&side, MI_MESSAGE_PUBLIC_KEY, digits, 64);
      if (cases[i].fragments)
        side_feed_hex (&side, "00000101");
      side_feed_hex (&side, cases[i].ack);
      assert_tx_failed (&side, cases[i].reason);
    }
}

static void
test_host_stops_after_many_lost_rounds (void)
{
  g_auto (Side) side;

  side_init (&side, MI_ROLE_HOST, 18, 1);
  side_send (&side, MI_MESSAGE_PUBLIC_KEY, digits, 64);
  side_feed_hex (&side, "00000101");
  for (guint i = 0; i < 64; i++)
    {
      /* Each of them counts as news. */
      side_wait (&side, 9000);
      g_assert_cmpint (side.event.kind, ==, MI_FRAME_NOTHING);
      side_feed_hex (&side, "000001050100");
      g_assert_cmpuint (side.effects->n, ==, 1);
    }
  side_feed_hex (&side, "000001050100");
  assert_tx_failed (&side, "lost fragments");
}

static void
test_host_waits_ten_seconds_for_success (void)
{
  g_auto (Side) side;

  side_init (&side, MI_ROLE_HOST, 18, 1);
  side_send (&side, MI_MESSAGE_PUBLIC_KEY, digits, 64);
  side_wait (&side, 9000);
  side_feed_hex (&side, "00000101");
  side_wait (&side, 9999);
  g_assert_cmpint (side.event.kind, ==, MI_FRAME_NOTHING);
  side_wait (&side, 1);
  assert_tx_failed (&side, "no acknowledgement");
}

/* A number that is listed often is sent once; one LOST frame cannot flood the link. */
static void
test_lost_list_with_repeats (void)
{
  g_auto (Side) side;

  side_init (&side, MI_ROLE_HOST, 18, 1);
  side_send (&side, MI_MESSAGE_PUBLIC_KEY, digits, 64);
  side_feed_hex (&side, "00000101");
  side_feed_hex (&side, "0000010504000400000004000500");
  g_assert_cmpuint (side.effects->n, ==, 1);
  g_assert_cmphex (side.effects->items[0].data[0], ==, 4);
}

static void
test_second_ready_is_ignored (void)
{
  g_auto (Side) side;

  side_init (&side, MI_ROLE_HOST, 18, 1);
  side_send (&side, MI_MESSAGE_PUBLIC_KEY, digits, 64);
  side_feed_hex (&side, "00000101");
  side_feed_hex (&side, "00000101");
  assert_written (&side, "");
  side_feed_hex (&side, "00000300");
  g_assert_cmpint (side.event.kind, ==, MI_FRAME_NOTHING);
  side_feed_hex (&side, "00000100");
  g_assert_cmpint (side.event.kind, ==, MI_FRAME_SENT);
}

#define FRAGMENT_1 "0100303132333435363738396162636465666768"
#define FRAGMENT_2 "0200696a6b6c6d6e6f707172737475767778797a"
#define FRAGMENT_3 "03004142434445464748494a4b4c4d4e4f505152"
#define FRAGMENT_4 "0400535455565758595a2b2f"

static void
test_gen1_resends_the_first_listed (void)
{
  g_auto (Side) side;

  side_init (&side, MI_ROLE_DEVICE_GEN1, 18, 1);
  side_send (&side, MI_MESSAGE_PUBLIC_KEY, digits, 64);
  side_feed_hex (&side, "00000104");
  assert_written (&side, "000000030400");
  side_feed_hex (&side, "000001050100");
  assert_written (&side, "000000030400");
  side_feed_hex (&side, "00000101");
  side_feed_hex (&side, "0000010504000200");
  assert_written (&side, FRAGMENT_4);
  side_feed_hex (&side, "00000103");
  g_assert_cmpint (side.event.kind, ==, MI_FRAME_NOTHING);
  side_feed_hex (&side, "00000100");
  g_assert_cmpint (side.event.kind, ==, MI_FRAME_SENT);
}

static void
test_gen2_resends_as_many_as_negotiated (void)
{
  g_auto (Side) side;

  side_init (&side, MI_ROLE_DEVICE_GEN2, 18, 2);
  side_send (&side, MI_MESSAGE_PUBLIC_KEY, digits, 64);
  side_feed_hex (&side, "00000101");
  side_feed_hex (&side, "00000105040002000100");
  assert_written (&side, FRAGMENT_4 "," FRAGMENT_2);
  side_feed_hex (&side, "00000104");
  g_assert_cmpint (side.event.kind, ==, MI_FRAME_NOTHING);
  g_assert_true (mi_frame_is_sending (side.frame));
}

static void
test_gen2_gives_up_on_wrong_acks (void)
{
  static const char *const acks[] = { "00000100", "000001050100" };

  for (guint i = 0; i < G_N_ELEMENTS (acks); i++)
    {
      g_auto (Side) side;

      side_init (&side, MI_ROLE_DEVICE_GEN2, 18, 1);
      side_send (&side, MI_MESSAGE_PUBLIC_KEY, digits, 64);
      side_feed_hex (&side, "00000104");
      g_assert_true (mi_frame_is_sending (side.frame));
      side_feed_hex (&side, acks[i]);
      assert_tx_failed (&side, "unexpected acknowledgement");
    }
}

/* Devices have no limit of their own: the procedure's 30 s end it. */
static void
test_device_waits_without_limit (void)
{
  g_auto (Side) side;

  side_init (&side, MI_ROLE_DEVICE_GEN2, 18, 1);
  side_send (&side, MI_MESSAGE_PUBLIC_KEY, digits, 64);
  g_assert_cmpint (mi_frame_deadline (side.frame), ==, -1);
}

static void
assert_received (Side *side, const guint8 *data, gsize len)
{
  g_assert_cmpint (side->event.kind, ==, MI_FRAME_RECEIVED);
  g_assert_cmpmem (side->event.data, side->event.len, data, len);
}

static void
test_host_lists_several (void)
{
  g_auto (Side) side;

  side_init (&side, MI_ROLE_HOST, 18, 6);
  side_expect (&side, MI_MESSAGE_PUBLIC_KEY, 64);
  side_feed_hex (&side, "000000030400");
  side_feed_hex (&side, FRAGMENT_2);
  side_feed_hex (&side, FRAGMENT_4);
  assert_written (&side, "0000010501000300");
  side_feed_hex (&side, FRAGMENT_3);
  assert_written (&side, "");
  side_feed_hex (&side, FRAGMENT_1);
  assert_written (&side, "00000100");
  assert_received (&side, digits, 64);
}

/* Whatever a device negotiates, a LOST fits the smallest ATT payload. */
static void
test_lost_list_fits_a_frame (void)
{
  g_auto (Side) side;

  side_init (&side, MI_ROLE_HOST, 18, 255);
  side_expect (&side, MI_MESSAGE_PASS_THROUGH, 500);
  side_feed_hex (&side, "000000001c00");
  side_wait (&side, 400);
  g_assert_cmpuint (side.effects->n, ==, 1);
  g_assert_cmpuint (side.effects->items[0].len, ==, 20);
}

/* Three rounds without anything new, not three rounds in all. */
static void
test_progress_resets_the_fruitless_rounds (void)
{
  g_auto (Side) side;

  side_init (&side, MI_ROLE_HOST, 18, 1);
  side_expect (&side, MI_MESSAGE_PUBLIC_KEY, 64);
  side_feed_hex (&side, "000000030400");
  side_feed_hex (&side, FRAGMENT_4);
  for (guint round = 0; round < 2; round++)
    {
      side_wait (&side, 400);
      assert_written (&side, "000001050100");
    }
  side_feed_hex (&side, FRAGMENT_1);
  assert_written (&side, "000001050200");
  for (guint round = 0; round < 2; round++)
    {
      side_wait (&side, 400);
      assert_written (&side, "000001050200");
    }
  side_wait (&side, 400);
  assert_written (&side, "00000103");
  g_assert_cmpint (side.event.kind, ==, MI_FRAME_RX_FAILED);
  g_assert_cmpstr (side.event.reason, ==, "lost fragments");
}

/* 400 ms for every six fragments that a LOST may list, or part of six. */
static void
assert_gap (guint8 simul, gint64 gap_ms)
{
  g_auto (Side) side;

  side_init (&side, MI_ROLE_DEVICE_GEN2, 18, simul);
  side_expect (&side, MI_MESSAGE_PUBLIC_KEY, 64);
  side_feed_hex (&side, "000000030400");
  side_wait (&side, gap_ms - 1);
  assert_written (&side, "");
  side_wait (&side, 1);
  assert_written (&side, "000001050100020003000400");
}

static void
test_gap_grows_with_simul (void)
{
  assert_gap (4, 400);
  assert_gap (6, 400);
  assert_gap (7, 800);
  assert_gap (12, 800);
  assert_gap (13, 1200);
}

static void
test_gen1_has_no_timer_after_lost (void)
{
  g_auto (Side) side;

  side_init (&side, MI_ROLE_DEVICE_GEN1, 18, 1);
  side_expect (&side, MI_MESSAGE_PUBLIC_KEY, 64);
  side_feed_hex (&side, "000000030400");
  side_wait (&side, 200);
  assert_written (&side, "000001050100");
  g_assert_cmpint (mi_frame_deadline (side.frame), ==, -1);
}

static void
test_long_last_fragment (void)
{
  g_auto (Side) device;
  g_auto (Side) host;

  side_init (&device, MI_ROLE_DEVICE_GEN2, 18, 1);
  side_expect (&device, MI_MESSAGE_APP_RANDOM, 4);
  side_feed_hex (&device, "0000000b0100");
  side_feed_hex (&device, "0100303132333435");
  assert_received (&device, digits, 4);

  side_init (&host, MI_ROLE_HOST, 18, 1);
  side_expect (&host, MI_MESSAGE_APP_RANDOM, 4);
  side_feed_hex (&host, "0000000b0100");
  side_feed_hex (&host, "0100303132333435");
  g_assert_true (mi_frame_is_receiving (host.frame));
  side_feed_hex (&host, "010030313233");
  assert_received (&host, digits, 4);
}

/* The peers disagree about the size, and one fragment is all there is: it fits, it is taken. */
static void
test_last_fragment_over_dmtu (void)
{
  g_auto (Side) side;

  side_init (&side, MI_ROLE_DEVICE_GEN2, 18, 1);
  side_expect (&side, MI_MESSAGE_PASS_THROUGH, 24);
  side_feed_hex (&side, "000000000100");
  side_feed_hex (&side, "0100303132333435363738396162636465666768696a6b6c6d6e");
  assert_received (&side, digits, 24);
}

static void
test_single_too_long (void)
{
  g_auto (Side) side;

  side_init (&side, MI_ROLE_HOST, 18, 6);
  side_expect (&side, MI_MESSAGE_DEVICE_RANDOM, 3);
  side_feed_hex (&side, "0000020d30313233");
  assert_written (&side, "00000304");
  g_assert_cmpint (side.event.kind, ==, MI_FRAME_RX_FAILED);
}

static void
test_short_certificate_is_announced (void)
{
  g_auto (Side) side;

  side_init (&side, MI_ROLE_HOST, 18, 6);
  side_send (&side, MI_MESSAGE_SERVER_CERTIFICATE, digits, 10);
  assert_written (&side, "000000070100");
}

static void
test_newest_early_frame_is_kept (void)
{
  g_auto (Side) side;

  side_init (&side, MI_ROLE_HOST, 18, 6);
  side_feed_hex (&side, "0000020d30");
  side_feed_hex (&side, "0000020d3031");
  side_feed_hex (&side, "000000030000");
  side_expect (&side, MI_MESSAGE_PUBLIC_KEY, 64);
  assert_written (&side, "");
  side_expect (&side, MI_MESSAGE_DEVICE_RANDOM, 16);
  assert_written (&side, "00000300");
  assert_received (&side, digits, 2);
  side_expect (&side, MI_MESSAGE_DEVICE_RANDOM, 16);
  g_assert_cmpint (side.event.kind, ==, MI_FRAME_NOTHING);
}

static void
test_early_announce_may_be_refused (void)
{
  g_auto (Side) side;

  side_init (&side, MI_ROLE_HOST, 18, 1);
  side_feed_hex (&side, "0000000d0900");
  side_expect (&side, MI_MESSAGE_DEVICE_RANDOM, 16);
  assert_written (&side, "00000104");
  g_assert_cmpint (side.event.kind, ==, MI_FRAME_RX_FAILED);
}

static void
test_device_keeps_known_types_only (void)
{
  g_auto (Side) side;

  side_init (&side, MI_ROLE_DEVICE_GEN1, 18, 1);
  side_feed_hex (&side, "000000000200");
  side_feed_hex (&side, "0000000f0100");
  side_feed_hex (&side, "000000010100");
  side_feed_hex (&side, "000000700100");
  side_expect (&side, MI_MESSAGE_WIFI_CONFIG, 16);
  assert_written (&side, "");
  side_expect (&side, MI_MESSAGE_PASS_THROUGH, 24);
  assert_written (&side, "00000101");
}

static void
test_stray_frames_change_nothing (void)
{
  static const char *const strays[] = { "0100303132",   "00000100",     "000001050100", "00000300",
                                        "000005000612", "000005011010", "000000030000" };
  g_auto (Side) side;

  side_init (&side, MI_ROLE_HOST, 18, 1);
  side_expect (&side, MI_MESSAGE_PUBLIC_KEY, 64);
  for (guint i = 0; i < G_N_ELEMENTS (strays); i++)
    {
      side_feed_hex (&side, strays[i]);
      g_assert_cmpint (side.event.kind, ==, MI_FRAME_NOTHING);
      assert_written (&side, "");
    }
  g_assert_true (mi_frame_is_idle (side.frame));
  g_assert_cmpuint (mi_frame_get_malformed (side.frame), ==, 0);
  side_feed_hex (&side, "0100");
  g_assert_cmpuint (mi_frame_get_malformed (side.frame), ==, 1);
}

/* The device has not heard READY, so that our LOST makes it announce again. */
static void
test_announce_again_is_answered (void)
{
  g_auto (Side) side;

  side_init (&side, MI_ROLE_HOST, 18, 1);
  side_expect (&side, MI_MESSAGE_PUBLIC_KEY, 64);
  side_feed_hex (&side, "000000030400");
  side_feed_hex (&side, "000000030400");
  assert_written (&side, "");
  side_wait (&side, 400);
  side_feed_hex (&side, "000000030400");
  assert_written (&side, "00000101");
  side_feed_hex (&side, FRAGMENT_1);
  side_feed_hex (&side, "000000030400");
  assert_written (&side, "");
}

static void
test_reset_drops_everything_but_the_sizes (void)
{
  g_auto (Side) side;

  side_init (&side, MI_ROLE_HOST, 32, 6);
  side_feed_hex (&side, "0000020d30");
  side_send (&side, MI_MESSAGE_PUBLIC_KEY, digits, 64);
  side_expect (&side, MI_MESSAGE_PASS_THROUGH, 64);
  side_feed_hex (&side, "000000000200");
  mi_frame_explore (side.frame, side.now_ms, side.effects);
  mi_frame_reset (side.frame);
  g_assert_true (mi_frame_is_idle (side.frame));
  g_assert_cmpint (mi_frame_deadline (side.frame), ==, -1);
  side_expect (&side, MI_MESSAGE_DEVICE_RANDOM, 16);
  assert_written (&side, "");
  g_assert_cmpuint (side.sizes.dmtu, ==, 32);
  g_assert_cmpuint (side.sizes.simul, ==, 6);
}

/* A tick that comes too early, or twice, does nothing. */
static void
test_early_tick_is_harmless (void)
{
  g_auto (Side) side;

  side_init (&side, MI_ROLE_HOST, 18, 1);
  side_send (&side, MI_MESSAGE_PUBLIC_KEY, digits, 64);
  side_feed_hex (&side, "00000102");
  mi_effects_reset (side.effects);
  side.event = mi_frame_tick (side.frame, side.now_ms + 199, side.effects);
  g_assert_cmpint (side.event.kind, ==, MI_FRAME_NOTHING);
  assert_written (&side, "");
  g_assert_cmpint (mi_frame_deadline (side.frame), ==, side.now_ms + 200);
}

/* Exploration, what the vectors leave open */

static void
explore (Side *side)
{
  mi_effects_reset (side->effects);
  mi_frame_explore (side->frame, side->now_ms, side->effects);
}

static void
test_no_exploration_answer (void)
{
  g_auto (Side) side;

  side_init (&side, MI_ROLE_HOST, 18, 1);
  side.sizes.att_payload = 244;
  explore (&side);
  side_wait (&side, 999);
  g_assert_cmpint (side.event.kind, ==, MI_FRAME_NOTHING);
  side_wait (&side, 1);
  g_assert_cmpint (side.event.kind, ==, MI_FRAME_EXPLORED);
  g_assert_cmpuint (side.sizes.dmtu, ==, 18);
  g_assert_cmpuint (side.sizes.simul, ==, 1);
}

static void
test_limits_without_length_keep_simul (void)
{
  g_auto (Side) side;

  side_init (&side, MI_ROLE_HOST, 18, 1);
  side.sizes.att_payload = 244;
  explore (&side);
  side_feed_hex (&side, "0000040004f2");
  assert_written (&side, "0000050004f2");
  side_wait (&side, 1000);
  g_assert_cmpint (side.event.kind, ==, MI_FRAME_EXPLORED);
  g_assert_cmpuint (side.sizes.dmtu, ==, 18);
  g_assert_cmpuint (side.sizes.simul, ==, 4);
}

/* 0x16 is 22: a length frame of 20 fill bytes is right, whose @wrong-th byte is 0x17 here. */
static void
explore_with_fill (guint fill_len, guint wrong, guint dmtu)
{
  guint8 frame[4 + 32] = { 0, 0, MI_FRAME_MANAGE, 1 };
  g_auto (Side) side;

  memset (frame + 4, 0x16, fill_len);
  if (wrong < fill_len)
    frame[4 + wrong] = 0x17;
  side_init (&side, MI_ROLE_HOST, 18, 1);
  side.sizes.att_payload = 244;
  explore (&side);
  side_feed_hex (&side, "000004000616");
  side_feed (&side, frame, 4 + fill_len);
  frame[2] = MI_FRAME_MANAGE_ACK;
  g_assert_cmpuint (side.effects->n, ==, 1);
  g_assert_cmpmem (side.effects->items[0].data, side.effects->items[0].len, frame, 4 + fill_len);
  g_assert_cmpint (side.event.kind, ==, MI_FRAME_EXPLORED);
  g_assert_cmpuint (side.sizes.dmtu, ==, dmtu);
}

static void
test_wrong_fill_is_echoed_and_not_adopted (void)
{
  const guint none = G_MAXUINT;

  explore_with_fill (20, none, 22);
  explore_with_fill (20, 0, 18);
  explore_with_fill (20, 10, 18);
  explore_with_fill (20, 19, 18);
  explore_with_fill (19, none, 18);
  explore_with_fill (21, none, 18);
}

static void
test_idle_host_answers_unasked (void)
{
  g_auto (Side) side;

  side_init (&side, MI_ROLE_HOST, 18, 1);
  side.sizes.att_payload = 244;
  side_feed_hex (&side, "000004000616");
  assert_written (&side, "000005000616");
  side_feed_hex (&side, "000004011616161616161616161616161616161616161616");
  assert_written (&side, "000005011616161616161616161616161616161616161616");
  g_assert_cmpint (side.event.kind, ==, MI_FRAME_NOTHING);
  g_assert_cmpuint (side.sizes.dmtu, ==, 22);
  side_send (&side, MI_MESSAGE_PUBLIC_KEY, digits, 64);
  side_feed_hex (&side, "000004000612");
  assert_written (&side, "");
  g_assert_cmpuint (side.sizes.dmtu, ==, 22);
}

static void
test_device_without_replies (void)
{
  g_auto (Side) side;

  side_init (&side, MI_ROLE_DEVICE_GEN2, 18, 1);
  side.sizes.att_payload = 244;
  explore (&side);
  side_wait (&side, 399);
  g_assert_cmpint (side.event.kind, ==, MI_FRAME_NOTHING);
  side_wait (&side, 1);
  g_assert_cmpint (side.event.kind, ==, MI_FRAME_EXPLORED);
  side_feed_hex (&side, "0000050006f2");
  assert_written (&side, "");
  g_assert_cmpuint (side.sizes.simul, ==, 1);
}

/* The device looks at length and last byte, and trusts no number below what makes sense. */
static void
test_device_checks_the_length_reply (void)
{
  static const struct
  {
    const char *reply;
    guint dmtu;
  } cases[] = {
    { "000005011414141414141414141414141414141414141414", 20 - 2 },
    { "0000050100000000000000000000000000000000000000000016", 18 },
    { "000005010000000000000000000000000000000000000016", 22 },
    { "00000501", 18 },
  };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++)
    {
      g_auto (Side) side;

      side_init (&side, MI_ROLE_DEVICE_GEN2, 18, 1);
      side.sizes.att_payload = 24;
      explore (&side);
      assert_written (&side, "000004000616");
      side_feed_hex (&side, "000005000016");
      assert_written (&side, "000004011616161616161616161616161616161616161616");
      side_feed_hex (&side, cases[i].reply);
      g_assert_cmpint (side.event.kind, ==, MI_FRAME_EXPLORED);
      g_assert_cmpuint (side.sizes.dmtu, ==, cases[i].dmtu);
      g_assert_cmpuint (side.sizes.simul, ==, 1);
    }
}

/* Both ends against each other, with every single frame lost or doubled in turn */

typedef struct
{
  const char *name;
  MiFrameRole from;
  MiFrameRole to;
} Direction;

static const Direction directions[] = {
  { "host-to-gen1", MI_ROLE_HOST, MI_ROLE_DEVICE_GEN1 },
  { "host-to-gen2", MI_ROLE_HOST, MI_ROLE_DEVICE_GEN2 },
  { "gen1-to-host", MI_ROLE_DEVICE_GEN1, MI_ROLE_HOST },
  { "gen2-to-host", MI_ROLE_DEVICE_GEN2, MI_ROLE_HOST },
};

typedef struct
{
  Side *from;
  Side *to;
  guint frames; /* carried so far */
  guint lost;   /* number of the frame that is lost, from 1; 0: none */
  guint doubled;
  gboolean good; /* the message arrived */
  gboolean sent; /* ... and was acknowledged */
  const guint8 *want;
  gsize want_len;
} Carrier;

static void
carrier_event (Carrier *self, Side *side)
{
  switch (side->event.kind)
    {
    case MI_FRAME_RECEIVED:
      g_assert_true (side == self->to);
      g_assert_cmpmem (side->event.data, side->event.len, self->want, self->want_len);
      self->good = TRUE;
      break;
    case MI_FRAME_SENT:
      g_assert_true (side == self->from && self->good);
      self->sent = TRUE;
      break;
    case MI_FRAME_TX_FAILED:
    case MI_FRAME_RX_FAILED:
    case MI_FRAME_NOTHING:
    case MI_FRAME_MALFORMED:
    case MI_FRAME_EXPLORED:
    default:
      break;
    }
}

/* Delivers what @side has written; the frames cause further frames. */
static void
carrier_deliver (Carrier *self, Side *side)
{
  Side *peer = side == self->from ? self->to : self->from;
  g_autofree MiEffects *sent = NULL;

  g_assert_false (side->effects->overflow);
  if (side->effects->n == 0)
    return;
  sent = g_memdup2 (side->effects, sizeof *side->effects);
  for (guint i = 0; i < sent->n; i++)
    {
      const guint8 *data = sent->arena + (sent->items[i].data - side->effects->arena);
      guint times = ++self->frames == self->lost ? 0 : self->frames == self->doubled ? 2 : 1;

      for (; times > 0; times--)
        {
          side_feed (peer, data, sent->items[i].len);
          carrier_event (self, peer);
          carrier_deliver (self, peer);
        }
    }
}

/* Time goes on for one side. Returns: %FALSE if nothing more can happen there within a procedure.
 */
static gboolean
carrier_wait (Carrier *self, Side *side)
{
  gint64 deadline = mi_frame_deadline (side->frame);

  if (deadline < 0 || deadline > 1000000 + 30000)
    return FALSE;
  mi_effects_reset (side->effects);
  side->now_ms = MAX (side->now_ms, deadline);
  side->event = mi_frame_tick (side->frame, side->now_ms, side->effects);
  (side == self->from ? self->to : self->from)->now_ms = side->now_ms;
  carrier_event (self, side);
  carrier_deliver (self, side);
  return TRUE;
}

static Side *
carrier_next (Carrier *self)
{
  gint64 from = mi_frame_deadline (self->from->frame);
  gint64 to = mi_frame_deadline (self->to->frame);

  return from >= 0 && (to < 0 || from <= to) ? self->from : self->to;
}

/* Returns: whether the message arrived and the sender knows it. */
static gboolean
carry (const Direction *way, gsize len, guint16 dmtu, guint8 simul, guint lost, guint doubled,
       guint *frames)
{
  static guint8 payload[MI_FRAME_MAX];
  Carrier carrier = { .lost = lost, .doubled = doubled, .want = payload, .want_len = len };
  guint waits = 0;
  g_auto (Side) from;
  g_auto (Side) to;

  for (gsize i = 0; i < len; i++)
    payload[i] = (guint8) (i * 7 + len);
  side_init (&from, way->from, dmtu, simul);
  side_init (&to, way->to, dmtu, simul);
  carrier.from = &from;
  carrier.to = &to;
  side_expect (&to, MI_MESSAGE_PASS_THROUGH, len);
  side_send (&from, MI_MESSAGE_PASS_THROUGH, payload, len);
  carrier_deliver (&carrier, &from);
  while (carrier_wait (&carrier, carrier_next (&carrier)))
    g_assert_cmpuint (++waits, <, 200);
  /* The device may wait for its 30 s; the host has come to an end. */
  g_assert_true (mi_frame_is_idle (way->from == MI_ROLE_HOST ? from.frame : to.frame));
  *frames = carrier.frames;
  return carrier.good && carrier.sent;
}

/* Any fragment may be lost. Of the control frames the spec has none repeated but what it names. */
static void
test_each_fragment_lost (gconstpointer data)
{
  static const gsize lengths[] = { 1, 18, 19, 64, 379, 2050 };
  static const guint8 simuls[] = { 1, 6 };
  const Direction *way = data;
  guint total, unused;

  for (guint i = 0; i < G_N_ELEMENTS (lengths); i++)
    for (guint k = 0; k < G_N_ELEMENTS (simuls); k++)
      {
        guint16 dmtu = k == 0 ? 18 : 34;
        guint count = (guint) (lengths[i] + dmtu - 1) / dmtu;

        /* Nobody explores with generation 1. */
        if (simuls[k] > 1 && (way->from == MI_ROLE_DEVICE_GEN1 || way->to == MI_ROLE_DEVICE_GEN1))
          continue;
        g_assert_true (carry (way, lengths[i], dmtu, simuls[k], 0, 0, &total));
        /* announce, READY, fragments, SUCCESS; or one frame and its acknowledgement */
        if (total == 2)
          continue;
        g_assert_cmpuint (total, ==, count + 3);
        for (guint lost = 3; lost<3 + count; lost += count> 30 ? 7 : 1)
          g_assert_true (carry (way, lengths[i], dmtu, simuls[k], lost, 0, &unused));
      }
}

/* A fragment or announce that comes twice changes nothing. */
static void
test_each_fragment_doubled (gconstpointer data)
{
  const Direction *way = data;
  guint unused;

  for (guint doubled = 1; doubled <= 3 + 4; doubled++)
    g_assert_true (carry (way, 64, 18, 1, 0, doubled, &unused));
}

/* Lost announces and acknowledgements end the host's side at least: nothing hangs, nothing is
 * wrong. */
static void
test_each_control_frame_lost (gconstpointer data)
{
  const Direction *way = data;
  guint unused;

  for (guint lost = 1; lost <= 7; lost++)
    carry (way, 64, 18, 1, lost, 0, &unused);
}

static void
add_cases (JsonObject *top, const char *member, const char *prefix, GTestDataFunc func)
{
  JsonArray *cases = json_object_get_array_member (top, member);

  g_assert_cmpuint (json_array_get_length (cases), >, 0);
  for (guint i = 0; i < json_array_get_length (cases); i++)
    {
      JsonObject *object = json_array_get_object_element (cases, i);
      g_autofree char *path = NULL;

      if (json_object_has_member (object, "name"))
        path = vectors_path (prefix, json_object_get_string_member (object, "name"));
      else
        path = g_strdup_printf ("%s/%d-bytes-at-%d", prefix,
                                (int) json_object_get_int_member (object, "length"),
                                (int) json_object_get_int_member (object, "dmtu"));
      g_test_add_data_func (path, object, func);
    }
}

static void
add_directions (const char *name, GTestDataFunc func)
{
  for (guint i = 0; i < G_N_ELEMENTS (directions); i++)
    {
      g_autofree char *path = g_strdup_printf ("/frame/%s/%s", name, directions[i].name);

      g_test_add_data_func (path, &directions[i], func);
    }
}

static void
add_sending (void)
{
  g_test_add_func ("/frame/send/nothing-and-too-much-are-refused",
                   test_too_short_or_too_long_to_send);
  g_test_add_func ("/frame/send/announce-only-is-an-option", test_announce_only);
  g_test_add_func ("/frame/send/gen1-knows-no-single-frames", test_gen1_knows_no_single_frames);
  g_test_add_func ("/frame/send/flashers-ack-of-a-single-frame-is-taken",
                   test_single_is_acknowledged_by_the_other_mode);
  g_test_add_func ("/frame/send/gen2-sends-a-single-frame-again",
                   test_gen2_sends_a_single_frame_again);
  g_test_add_func ("/frame/send/host-fails-on-wrong-acks", test_host_fails_on_wrong_acks);
  g_test_add_func ("/frame/send/host-stops-after-64-lost-rounds",
                   test_host_stops_after_many_lost_rounds);
  g_test_add_func ("/frame/send/host-waits-10-s-for-success",
                   test_host_waits_ten_seconds_for_success);
  g_test_add_func ("/frame/send/repeated-lost-numbers-count-once", test_lost_list_with_repeats);
  g_test_add_func ("/frame/send/second-ready-is-ignored", test_second_ready_is_ignored);
  g_test_add_func ("/frame/send/gen1-resends-the-first-listed", test_gen1_resends_the_first_listed);
  g_test_add_func ("/frame/send/gen2-resends-as-many-as-negotiated",
                   test_gen2_resends_as_many_as_negotiated);
  g_test_add_func ("/frame/send/gen2-gives-up-on-wrong-acks", test_gen2_gives_up_on_wrong_acks);
  g_test_add_func ("/frame/send/device-waits-without-limit", test_device_waits_without_limit);
}

static void
add_receiving (void)
{
  g_test_add_func ("/frame/receive/single-certificate-is-ignored",
                   test_single_certificate_is_ignored);
  g_test_add_func ("/frame/receive/host-lists-several", test_host_lists_several);
  g_test_add_func ("/frame/receive/lost-list-fits-a-frame", test_lost_list_fits_a_frame);
  g_test_add_func ("/frame/receive/progress-resets-the-fruitless-rounds",
                   test_progress_resets_the_fruitless_rounds);
  g_test_add_func ("/frame/receive/gap-grows-with-simul", test_gap_grows_with_simul);
  g_test_add_func ("/frame/receive/gen1-has-no-timer-after-lost",
                   test_gen1_has_no_timer_after_lost);
  g_test_add_func ("/frame/receive/long-last-fragment-is-cut-or-ignored", test_long_last_fragment);
  g_test_add_func ("/frame/receive/last-fragment-over-dmtu-is-taken", test_last_fragment_over_dmtu);
  g_test_add_func ("/frame/receive/single-too-long-is-cancelled", test_single_too_long);
  g_test_add_func ("/frame/send/short-certificate-is-announced",
                   test_short_certificate_is_announced);
  g_test_add_func ("/frame/receive/newest-early-frame-is-kept", test_newest_early_frame_is_kept);
  g_test_add_func ("/frame/receive/early-announce-may-be-refused",
                   test_early_announce_may_be_refused);
  g_test_add_func ("/frame/receive/device-keeps-known-types-only",
                   test_device_keeps_known_types_only);
  g_test_add_func ("/frame/receive/stray-frames-change-nothing", test_stray_frames_change_nothing);
  g_test_add_func ("/frame/receive/announce-again-is-answered", test_announce_again_is_answered);
  g_test_add_func ("/frame/reset-drops-everything-but-the-sizes",
                   test_reset_drops_everything_but_the_sizes);
  g_test_add_func ("/frame/early-tick-is-harmless", test_early_tick_is_harmless);
}

static void
add_exploring (void)
{
  g_test_add_func ("/frame/explore/no-answer-ends-after-1-s", test_no_exploration_answer);
  g_test_add_func ("/frame/explore/limits-without-length-keep-simul",
                   test_limits_without_length_keep_simul);
  g_test_add_func ("/frame/explore/wrong-fill-is-echoed-and-not-adopted",
                   test_wrong_fill_is_echoed_and_not_adopted);
  g_test_add_func ("/frame/explore/idle-host-answers-unasked", test_idle_host_answers_unasked);
  g_test_add_func ("/frame/explore/device-without-replies-stops", test_device_without_replies);
  g_test_add_func ("/frame/explore/device-checks-the-length-reply",
                   test_device_checks_the_length_reply);
}

int
main (int argc, char **argv)
{
  JsonObject *top;

  g_test_init (&argc, &argv, NULL);
  top = vectors_load ("framing");
  add_cases (top, "frames", "/frame/codec", test_codec);
  add_cases (top, "splits", "/frame/split", test_split);
  add_cases (top, "transfers", "/frame/transfer", test_transfer);
  add_cases (top, "management", "/frame/management", test_exploration);
  add_sending ();
  add_receiving ();
  add_exploring ();
  add_directions ("each-fragment-lost-is-sent-again", test_each_fragment_lost);
  add_directions ("each-frame-doubled-changes-nothing", test_each_fragment_doubled);
  add_directions ("each-control-frame-lost-ends-by-itself", test_each_control_frame_lost);
  return g_test_run ();
}
