/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "mi-dfu.h"

#include "mi-auth-private.h"
#include "mi-bytes.h"
#include "mi-crypto.h"

#include <string.h>

/* Commands and events on 0x0017 (protocol/ota-mible.md section 1). */
enum
{
  COMMAND_NONE = 0,
  COMMAND_VERSION = 1,
  COMMAND_SIZE = 2,
  COMMAND_INDEX = 3,
  COMMAND_SWITCH = 4,
};
enum
{
  EVENT_REPLY = 1,
  EVENT_FRAGMENT = 2,
};

#define INDEX_LEN     2
#define FRAGMENT_MAX  (MI_FRAME_MAX - INDEX_LEN)
#define DMTU_START    18
#define DMTU_MAX      242
#define REPEAT_MAX    3
#define FILL_BYTE     0xa5
#define NO_STATUS     G_MAXUINT
#define HOLD_MS       400
#define COMMAND_MS    10000
#define FRAGMENT_MS   10000
#define VERIFY_MS     30000
#define DISCONNECT_MS 10000

/**
 * MiDfu:
 * @sizes: own copy: protocol 1 sends with the sizes of the start, whatever was negotiated
 * @held: status of the running fragment that overtook the acknowledgement of its message
 */
typedef struct
{
  MiProcedure parent;
  const MiSizes *connection; /* borrowed */
  MiSizes sizes;
  MiFrame *frame;
  const guint8 *image; /* borrowed */
  gsize len;
  guint32 delay_s;
  guint16 command; /* last one written */
  guint16 protocol;
  guint16 size;
  guint32 total;
  guint32 first;
  guint32 index; /* fragment being sent */
  guint repeats;
  guint held;
  gint64 held_deadline_ms;
  gboolean verified;
  guint8 status;
} MiDfu;

enum
{
  START,
  ASK_VERSION,
  ASK_SIZE,
  ASK_INDEX,
  SEND,
  STORED,
  VERIFY,
  DISCONNECT,
};

const char *
mi_dfu_status_text (guint16 protocol, guint8 status)
{
  switch (status)
    {
    case 0:
      return "success";
    case 1:
      return "no such command";
    case 2:
      return "authentication of the image failed";
    case 3:
      return "invalid parameter length";
    case 4:
      return "no memory";
    case 5:
      return "fragment could not be stored";
    case 6:
      return protocol == 2 ? "the image is not signed" : "no signature found";
    case 7:
      return protocol == 2 ? "receiving failed" : "unknown";
    case 8:
      return protocol == 2 ? "low battery" : "unknown";
    case 9:
      return protocol == 2 ? "invalid version" : "unknown";
    default:
      return "unknown";
    }
}

/* --- sending ---------------------------------------------------------------------------------- */

static void
write_command (MiDfu *self, guint16 command, MiEffects *effects)
{
  guint8 bytes[3] = { 0 };

  mi_put_u16 (bytes, command);
  self->command = command;
  mi_effects_write (effects, MI_CHANNEL_DFU_CONTROL, bytes, sizeof bytes);
}

static void
write_switch (MiDfu *self, MiEffects *effects)
{
  guint8 bytes[7];

  mi_put_u16 (bytes, COMMAND_SWITCH);
  bytes[2] = 4;
  mi_put_u32 (bytes + 3, self->delay_s);
  self->command = COMMAND_SWITCH;
  mi_effects_write (effects, MI_CHANNEL_DFU_CONTROL, bytes, sizeof bytes);
}

/* Length of fragment @index, which is valid. */
static gsize
fragment_len (MiDfu *self, guint32 index)
{
  gsize offset = (gsize) (index - 1) * self->size;

  return MIN (self->len - offset, self->size);
}

static gsize
make_fragment (MiDfu *self, guint32 index, guint8 *out)
{
  gsize len = fragment_len (self, index);

  mi_put_u16 (out, (guint16) index);
  memcpy (out + INDEX_LEN, self->image + (gsize) (index - 1) * self->size, len);
  return INDEX_LEN + len;
}

static gboolean
send_fragment (MiDfu *self, MiEffects *effects, GError **error)
{
  guint8 message[MI_FRAME_MAX];
  gsize len = make_fragment (self, self->index, message);

  mi_procedure_enter (&self->parent, SEND);
  if (mi_frame_send (self->frame, MI_MESSAGE_PASS_THROUGH, message, len, self->parent.now_ms,
                     effects))
    return TRUE;
  g_set_error (error, MI_ERROR, MI_ERROR_TRANSFER, "fragment %u cannot be sent", self->index);
  return FALSE;
}

static void
add_progress (MiDfu *self, MiEffects *effects)
{
  MiEffect *effect = mi_effects_add (effects, MI_EFFECT_PROGRESS, MI_CHANNEL_DFU_DATA);

  effect->done = (guint32) MIN ((gsize) (self->index - 1) * self->size, self->len);
  effect->total = (guint32) self->len;
}

static gboolean
status_error (MiDfu *self, guint command, guint8 status, GError **error)
{
  self->status = status;
  g_set_error (error, MI_ERROR, MI_ERROR_DFU, "command %u status %u (%s)", command, status,
               mi_dfu_status_text (self->protocol, status));
  return FALSE;
}

/* The next fragment, or the switch command after the last one. */
static gboolean
go_on (MiDfu *self, MiEffects *effects, GError **error)
{
  if (self->index <= self->total)
    return send_fragment (self, effects, error);
  write_switch (self, effects);
  mi_procedure_enter (&self->parent, VERIFY);
  return TRUE;
}

/* The device's word on the running fragment. */
static gboolean
fragment_result (MiDfu *self, guint status, MiEffects *effects, GError **error)
{
  mi_frame_reset (self->frame);
  /* Also after the last fragment: a held answer's timer must not outlive its state. */
  self->held = NO_STATUS;
  self->held_deadline_ms = -1;
  if (status == 0)
    {
      self->index++;
      self->repeats = 0;
      add_progress (self, effects);
      return go_on (self, effects, error);
    }
  if (self->repeats < REPEAT_MAX)
    {
      self->repeats++;
      return send_fragment (self, effects, error);
    }
  status_error (self, COMMAND_NONE, (guint8) status, error);
  g_prefix_error (error, "fragment %u of %u, sent %d times: ", self->index, self->total,
                  REPEAT_MAX + 1);
  return FALSE;
}

/* --- runs of the fill byte (protocol/framing.md section 4, fill quirk) ---------------------------
 */

static gboolean
is_fill (const guint8 *data, gsize len)
{
  for (gsize i = 0; i < len; i++)
    if (data[i] != FILL_BYTE)
      return FALSE;
  return TRUE;
}

/* First fragment of @size bytes that has a frame of nothing but the fill byte, other than its last
 * one; 0: none. A device takes such a frame for a missing one. The first frame cannot be one: it
 * holds the index. */
static guint32
find_unsendable (MiDfu *self, gsize dmtu, gsize size)
{
  for (gsize offset = 0; offset < self->len; offset += size)
    {
      gsize n = MIN (self->len - offset, size);

      for (gsize at = dmtu - INDEX_LEN; at + dmtu < n; at += dmtu)
        if (is_fill (self->image + offset + at, dmtu))
          return (guint32) (offset / size) + 1;
    }
  return 0;
}

static gboolean
check_runs (MiDfu *self, GError **error)
{
  guint32 fragment = find_unsendable (self, self->sizes.dmtu, self->size);
  gsize other_dmtu = MIN (self->connection->att_payload - 2, DMTU_MAX);
  gboolean explored = self->sizes.dmtu > DMTU_START;
  const char *advice = "";

  if (fragment == 0)
    return TRUE;
  if (explored && find_unsendable (self, DMTU_START, 512) == 0)
    advice = "; without a size exploration on the connection it can be sent";
  else if (!explored && self->protocol == 2 && other_dmtu > DMTU_START
           && find_unsendable (self, other_dmtu, FRAGMENT_MAX) == 0)
    advice = "; after a size exploration on the connection it can be sent";
  g_set_error (error, MI_ERROR, MI_ERROR_UNSUPPORTED,
               "fragment %u holds a frame of 0xa5 only, which the device takes for a lost one "
               "(%u bytes per fragment, %u per frame)%s",
               fragment, self->size, self->sizes.dmtu, advice);
  return FALSE;
}

/* --- replies ------------------------------------------------------------------------------------
 */

typedef struct
{
  guint8 event;
  guint16 code;  /* of a reply */
  guint16 index; /* of a fragment event */
  guint8 status;
  MiReader result;
} DfuEvent;

static gboolean
parse_event (const MiEvent *event, DfuEvent *out, GError **error)
{
  MiReader in = MI_READER (event->data, event->len);
  guint8 length;

  out->event = mi_reader_u8 (&in);
  length = mi_reader_u8 (&in);
  if (mi_reader_ok (&in) && length == mi_reader_left (&in) && out->event == EVENT_REPLY)
    {
      out->code = mi_reader_u16 (&in);
      out->status = mi_reader_u8 (&in);
      out->result = in;
      if (mi_reader_ok (&in))
        return TRUE;
    }
  else if (mi_reader_ok (&in) && length == mi_reader_left (&in) && out->event == EVENT_FRAGMENT)
    {
      out->status = mi_reader_u8 (&in);
      out->index = mi_reader_u16 (&in);
      if (mi_reader_at_end (&in))
        return TRUE;
    }
  g_set_error (error, MI_ERROR, MI_ERROR_PROTOCOL,
               "malformed event %u of %" G_GSIZE_FORMAT " bytes on %04x", out->event, event->len,
               event->channel);
  return FALSE;
}

static gboolean
bad_result (MiDfu *self, GError **error)
{
  g_set_error (error, MI_ERROR, MI_ERROR_PROTOCOL, "unusable result of command %u in state %s",
               self->command, mi_procedure_get_state_name (&self->parent));
  return FALSE;
}

static gboolean
on_version_reply (MiDfu *self, DfuEvent *reply, MiEffects *effects, GError **error)
{
  self->protocol = mi_reader_u16 (&reply->result);
  if (!mi_reader_ok (&reply->result))
    return bad_result (self, error);
  if (self->protocol != 1 && self->protocol != 2)
    {
      g_set_error (error, MI_ERROR, MI_ERROR_UNSUPPORTED, "unknown DFU protocol %u",
                   self->protocol);
      return FALSE;
    }
  if (self->protocol == 2)
    self->sizes = *self->connection;
  write_command (self, COMMAND_SIZE, effects);
  mi_procedure_enter (&self->parent, ASK_SIZE);
  return TRUE;
}

static gboolean
on_size_reply (MiDfu *self, DfuEvent *reply, MiEffects *effects, GError **error)
{
  self->size = mi_reader_u16 (&reply->result);
  if (!mi_reader_ok (&reply->result) || self->size == 0 || self->size > FRAGMENT_MAX)
    return bad_result (self, error);
  self->total = (guint32) ((self->len + self->size - 1) / self->size);
  if (self->total > G_MAXUINT16)
    {
      g_set_error (error, MI_ERROR, MI_ERROR_UNSUPPORTED,
                   "%u fragments of %u bytes cannot be numbered", self->total, self->size);
      return FALSE;
    }
  if (!check_runs (self, error))
    return FALSE;
  write_command (self, COMMAND_INDEX, effects);
  mi_procedure_enter (&self->parent, ASK_INDEX);
  return TRUE;
}

/* Whether the device holds the first @index fragments of this very image. */
static gboolean
can_resume (MiDfu *self, guint16 index, guint32 crc)
{
  if (self->protocol != 2 || index == 0 || index >= self->total)
    return FALSE;
  return (mi_crc32 (0xffffffff, self->image, (gsize) index * self->size) ^ 0xffffffff) == crc;
}

static gboolean
on_index_reply (MiDfu *self, DfuEvent *reply, MiEffects *effects, GError **error)
{
  guint16 index = mi_reader_u16 (&reply->result);
  guint32 crc = self->protocol == 2 ? mi_reader_u32 (&reply->result) : 0;

  if (!mi_reader_ok (&reply->result))
    return bad_result (self, error);
  self->first = can_resume (self, index, crc) ? index + 1u : 1;
  self->index = self->first;
  add_progress (self, effects);
  return go_on (self, effects, error);
}

static gboolean
on_switch_reply (MiDfu *self, DfuEvent *reply, MiEffects *effects, GError **error)
{
  self->verified = TRUE;
  /* The device switches only after the link has gone (protocol/ota-mible.md section 3). */
  mi_effects_add (effects, MI_EFFECT_DISCONNECT, 0);
  mi_procedure_enter (&self->parent, DISCONNECT);
  return TRUE;
}

/* --- states -------------------------------------------------------------------------------------
 */

static gboolean
is_event (const MiInput *in, MiEventKind kind)
{
  return mi_input_is_event (in, kind);
}

static gboolean
on_start (MiProcedure *procedure, const MiInput *in, MiEffects *effects, GError **error)
{
  if (!is_event (in, MI_EVENT_START))
    return mi_procedure_default (procedure, in, error);
  write_command ((MiDfu *) procedure, COMMAND_VERSION, effects);
  mi_procedure_enter (procedure, ASK_VERSION);
  return TRUE;
}

typedef gboolean (*ReplyHandler) (MiDfu *self, DfuEvent *reply, MiEffects *effects, GError **error);

/* A state that waits for the reply to the last command. */
static gboolean
wait_reply (MiDfu *self, const MiInput *in, ReplyHandler handler, MiEffects *effects,
            GError **error)
{
  DfuEvent reply = { 0 };

  if (!is_event (in, MI_EVENT_RECEIVED))
    return mi_procedure_default (&self->parent, in, error);
  if (in->event->channel != MI_CHANNEL_DFU_CONTROL)
    return TRUE;
  if (!parse_event (in->event, &reply, error))
    return FALSE;
  /* Events may come twice: those of an earlier command or of a fragment say nothing new. */
  if (reply.event == EVENT_FRAGMENT || reply.code < self->command)
    return TRUE;
  if (reply.code != self->command)
    return bad_result (self, error);
  if (reply.status != 0)
    return status_error (self, self->command, reply.status, error);
  return handler (self, &reply, effects, error);
}

static gboolean
on_ask_version (MiProcedure *procedure, const MiInput *in, MiEffects *effects, GError **error)
{
  return wait_reply ((MiDfu *) procedure, in, on_version_reply, effects, error);
}

static gboolean
on_ask_size (MiProcedure *procedure, const MiInput *in, MiEffects *effects, GError **error)
{
  return wait_reply ((MiDfu *) procedure, in, on_size_reply, effects, error);
}

static gboolean
on_ask_index (MiProcedure *procedure, const MiInput *in, MiEffects *effects, GError **error)
{
  return wait_reply ((MiDfu *) procedure, in, on_index_reply, effects, error);
}

static gboolean
on_verify (MiProcedure *procedure, const MiInput *in, MiEffects *effects, GError **error)
{
  return wait_reply ((MiDfu *) procedure, in, on_switch_reply, effects, error);
}

/* A fragment event while the fragment is on the way or waited for. Gives TRUE in @ours if it is
 * about this fragment. */
static gboolean
read_fragment_event (MiDfu *self, const MiInput *in, gboolean *ours, guint8 *status, GError **error)
{
  DfuEvent event = { 0 };

  *ours = FALSE;
  if (in->event->channel != MI_CHANNEL_DFU_CONTROL)
    return TRUE;
  if (!parse_event (in->event, &event, error))
    return FALSE;
  /* Said before. A failed transfer has no index of its own: it may name the last one. */
  if (event.event != EVENT_FRAGMENT || (event.index < self->index && event.status == 0))
    return TRUE;
  if (event.index > self->index)
    {
      g_set_error (error, MI_ERROR, MI_ERROR_PROTOCOL, "device handled fragment %u, sent was %u",
                   event.index, self->index);
      return FALSE;
    }
  *ours = TRUE;
  *status = event.status;
  return TRUE;
}

static gboolean
on_send (MiProcedure *procedure, const MiInput *in, MiEffects *effects, GError **error)
{
  MiDfu *self = (MiDfu *) procedure;
  gboolean ours;
  guint8 status;

  if (mi_input_is_sent (in, MI_MESSAGE_PASS_THROUGH))
    {
      if (self->held != NO_STATUS)
        return fragment_result (self, self->held, effects, error);
      mi_procedure_enter (procedure, STORED);
      return TRUE;
    }
  if (is_event (in, MI_EVENT_TIMER) && self->held_deadline_ms >= 0
      && in->event->now_ms >= self->held_deadline_ms)
    return fragment_result (self, self->held, effects, error);
  if (!is_event (in, MI_EVENT_RECEIVED))
    return mi_procedure_default (procedure, in, error);
  if (!read_fragment_event (self, in, &ours, &status, error))
    return FALSE;
  if (ours)
    {
      /* Two characteristics have no order between them: the acknowledgement is still due. */
      self->held = status;
      self->held_deadline_ms = procedure->now_ms + HOLD_MS;
    }
  return TRUE;
}

static gboolean
on_stored (MiProcedure *procedure, const MiInput *in, MiEffects *effects, GError **error)
{
  MiDfu *self = (MiDfu *) procedure;
  gboolean ours;
  guint8 status;

  if (!is_event (in, MI_EVENT_RECEIVED))
    return mi_procedure_default (procedure, in, error);
  if (!read_fragment_event (self, in, &ours, &status, error))
    return FALSE;
  return !ours || fragment_result (self, status, effects, error);
}

static gboolean
on_disconnect (MiProcedure *procedure, const MiInput *in, MiEffects *effects, GError **error)
{
  /* Verified: the device switches as soon as the link is gone, whoever drops it. */
  if (is_event (in, MI_EVENT_LINK_LOST)
      || (is_event (in, MI_EVENT_TIMER) && in->event->now_ms >= procedure->state_deadline_ms))
    mi_procedure_done (procedure, effects);
  return TRUE;
}

static const MiState states[] = {
  [START] = { "start", on_start, .limit_ms = 0 },
  [ASK_VERSION] = { "ask-version", on_ask_version, .limit_ms = COMMAND_MS },
  [ASK_SIZE] = { "ask-size", on_ask_size, .limit_ms = COMMAND_MS },
  [ASK_INDEX] = { "ask-index", on_ask_index, .limit_ms = COMMAND_MS },
  /* The framing has its own limits for silence; this one ends a message that never does. */
  [SEND] = { "send-fragment", on_send, .limit_ms = 3 * FRAGMENT_MS },
  [STORED] = { "wait-stored", on_stored, .limit_ms = FRAGMENT_MS },
  [VERIFY] = { "verify", on_verify, .limit_ms = VERIFY_MS },
  [DISCONNECT] = { "disconnect", on_disconnect, .limit_ms = DISCONNECT_MS },
};

static gboolean
deliver_frame (MiDfu *self, const MiEvent *event, MiFrameEvent frame_event, MiEffects *effects,
               GError **error)
{
  MiInput in = { .kind = MI_INPUT_SENT, .event = event, .type = frame_event.type };

  switch (frame_event.kind)
    {
    case MI_FRAME_SENT:
      return mi_procedure_handle (&self->parent, &in, effects, error);
    case MI_FRAME_TX_FAILED:
    case MI_FRAME_RX_FAILED:
      if (self->held != NO_STATUS)
        return fragment_result (self, self->held, effects, error);
      if (self->protocol == 2 && g_strcmp0 (frame_event.reason, "no acknowledgement") != 0)
        {
          /* The receiver gave up: its event with status 7 follows, and asks for a repeat. */
          mi_frame_reset (self->frame);
          mi_procedure_enter (&self->parent, STORED);
          return TRUE;
        }
      mi_auth_set_transfer_error (error, &frame_event, mi_procedure_get_state_name (&self->parent));
      g_prefix_error (error, "fragment %u of %u: ", self->index, self->total);
      return FALSE;
    case MI_FRAME_NOTHING:
    case MI_FRAME_MALFORMED:
    case MI_FRAME_RECEIVED:
    case MI_FRAME_EXPLORED:
      break;
    }
  return TRUE;
}

static gboolean
dfu_dispatch (MiProcedure *procedure, const MiEvent *event, MiEffects *effects, GError **error)
{
  MiDfu *self = (MiDfu *) procedure;
  const MiInput in = { .kind = MI_INPUT_EVENT, .event = event };

  if (event->kind == MI_EVENT_RECEIVED && event->channel == MI_CHANNEL_DFU_DATA)
    return deliver_frame (
        self, event, mi_frame_feed (self->frame, event->data, event->len, event->now_ms, effects),
        effects, error);
  if (event->kind == MI_EVENT_TIMER
      && !deliver_frame (self, event, mi_frame_tick (self->frame, event->now_ms, effects), effects,
                         error))
    return FALSE;
  return mi_procedure_handle (procedure, &in, effects, error);
}

static gint64
dfu_deadline (MiProcedure *procedure)
{
  MiDfu *self = (MiDfu *) procedure;

  return mi_deadline_min (mi_frame_deadline (self->frame), self->held_deadline_ms);
}

static void
dfu_clear (MiProcedure *procedure)
{
  g_clear_pointer (&((MiDfu *) procedure)->frame, mi_frame_free);
}

static const MiProcedureClass dfu_class = {
  .name = "dfu",
  .size = sizeof (MiDfu),
  .states = states,
  .dispatch = dfu_dispatch,
  .deadline = dfu_deadline,
  .clear = dfu_clear,
};

MiProcedure *
mi_dfu_new (MiSizes *sizes, const guint8 *image, gsize len, guint32 delay_s)
{
  MiDfu *self;

  g_return_val_if_fail (sizes != NULL && image != NULL, NULL);
  g_return_val_if_fail (len >= 1 && len <= G_MAXUINT32, NULL);
  self = mi_procedure_alloc (&dfu_class, START);
  self->connection = sizes;
  self->sizes = (MiSizes) MI_SIZES_INIT (sizes->att_payload);
  self->frame = mi_frame_new (MI_CHANNEL_DFU_DATA, MI_ROLE_HOST, &self->sizes);
  self->image = image;
  self->len = len;
  self->delay_s = delay_s;
  self->held = NO_STATUS;
  self->held_deadline_ms = -1;
  return &self->parent;
}

#define DFU_OR(self, value)                                                                        \
  g_return_val_if_fail ((self) != NULL && (self)->klass == &dfu_class, (value))

guint16
mi_dfu_get_protocol (MiProcedure *self)
{
  DFU_OR (self, 0);
  return ((MiDfu *) self)->protocol;
}

guint32
mi_dfu_get_fragments (MiProcedure *self)
{
  DFU_OR (self, 0);
  return ((MiDfu *) self)->total;
}

guint32
mi_dfu_get_first (MiProcedure *self)
{
  DFU_OR (self, 0);
  return ((MiDfu *) self)->first;
}

gboolean
mi_dfu_verified (MiProcedure *self)
{
  DFU_OR (self, FALSE);
  return ((MiDfu *) self)->verified;
}

guint8
mi_dfu_get_status (MiProcedure *self)
{
  DFU_OR (self, 0);
  return ((MiDfu *) self)->status;
}
