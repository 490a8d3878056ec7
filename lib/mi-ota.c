/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "mi-ota.h"

#include "mi-bytes.h"
#include "mi-crypto.h"
#include "mi-procedure-private.h"

#include <string.h>

/* Commands, told from block indexes by being 0xFF00 or more (protocol/ota-telink.md section 1). */
enum
{
  COMMAND_VERSION = 0xff00,
  COMMAND_START = 0xff01,
  COMMAND_END = 0xff02,
  COMMAND_RESULT = 0xff06,
};

#define MAX_BLOCKS      0xff00
#define NO_BLOCK        G_MAXUINT32
#define INTERVAL_MS     500
#define ERASE_MS        300
#define BARRIER_MS      10000
#define DROP_MS         10000
#define END_COMMAND_LEN 6

/**
 * MiOta:
 * @written: blocks given to the link
 * @confirmed: blocks that a read-back has confirmed
 * @barrier: blocks that the outstanding read confirms, NO_BLOCK: no read is outstanding
 *
 * Only one read is outstanding at any time: a stack may answer two reads of one characteristic
 * with one value, and then the second would confirm nothing.
 */
typedef struct
{
  MiProcedure parent;
  const guint8 *image; /* borrowed */
  gsize len;
  guint32 blocks;
  guint window;
  MiOtaOptions options;
  guint32 written;
  guint32 confirmed;
  guint32 barrier;
  gboolean end_sent;
  gboolean saw_drop;
  guint8 code;
} MiOta;

enum
{
  START,
  SET_INTERVAL,
  WAIT_INTERVAL,
  VERSION_REQUEST,
  START_REQUEST,
  WAIT_ERASE,
  UPLOAD,
  UPLOAD_REQUEST,
  WAIT_DROP,
};

void
mi_ota_packet (const guint8 *image, gsize len, guint16 index, guint8 *out)
{
  gsize offset = (gsize) index * MI_OTA_BLOCK_LEN;
  gsize n = offset < len ? MIN (len - offset, MI_OTA_BLOCK_LEN) : 0;

  mi_put_u16 (out, index);
  memset (out + 2, 0xff, MI_OTA_BLOCK_LEN);
  if (n > 0)
    memcpy (out + 2, image + offset, n);
  mi_put_u16 (out + 2 + MI_OTA_BLOCK_LEN, mi_crc16_modbus (out, 2 + MI_OTA_BLOCK_LEN));
}

const char *
mi_ota_code_text (guint8 code)
{
  /* First column of protocol/ota-telink.md section 3: what thermometers mean. */
  static const char *const texts[]
      = { "success",           "packet lost", "data CRC",    "writing the flash failed",
          "last packets lost", "timeout",     "firmware CRC" };

  return code < G_N_ELEMENTS (texts) ? texts[code] : "unknown";
}

static void
write_bytes (MiOta *self, MiEffects *effects, const guint8 *data, gsize len)
{
  guint n = effects->n;

  mi_effects_write (effects, MI_CHANNEL_OTA, data, len);
  if (self->options.request && effects->n > n)
    effects->items[n].kind = MI_EFFECT_WRITE_REQUEST;
}

static void
write_command (MiOta *self, MiEffects *effects, guint16 command)
{
  guint8 bytes[2];

  mi_put_u16 (bytes, command);
  write_bytes (self, effects, bytes, sizeof bytes);
}

static void
write_block (MiOta *self, MiEffects *effects)
{
  guint8 packet[MI_OTA_PACKET_LEN];

  mi_ota_packet (self->image, self->len, (guint16) self->written, packet);
  write_bytes (self, effects, packet, sizeof packet);
  self->written++;
}

static void
add_progress (MiOta *self, MiEffects *effects)
{
  MiEffect *effect = mi_effects_add (effects, MI_EFFECT_PROGRESS, MI_CHANNEL_OTA);

  effect->done = (guint32) MIN ((gsize) self->confirmed * MI_OTA_BLOCK_LEN, self->len);
  effect->total = (guint32) self->len;
}

static void
write_end (MiOta *self, MiEffects *effects)
{
  guint8 bytes[END_COMMAND_LEN];
  guint16 last = (guint16) (self->blocks - 1);

  mi_put_u16 (bytes, COMMAND_END);
  mi_put_u16 (bytes + 2, last);
  mi_put_u16 (bytes + 4, last ^ 0xffff);
  write_bytes (self, effects, bytes, sizeof bytes);
  self->end_sent = TRUE;
  mi_procedure_enter (&self->parent, WAIT_DROP);
}

/* --- results from the device ------------------------------------------------------------------ */

static gboolean
check_code (MiOta *self, guint8 code, GError **error)
{
  if (code == 0)
    return TRUE;
  self->code = code;
  g_set_error (error, MI_ERROR, MI_ERROR_OTA, "device reported code %u (%s) after %u of %u blocks",
               code, mi_ota_code_text (code), self->written, self->blocks);
  return FALSE;
}

/* Later firmware may notify its verdict: 06 ff, code. Anything else is nobody's business. */
static gboolean
on_notification (MiOta *self, const MiEvent *event, GError **error)
{
  MiReader in = MI_READER (event->data, event->len);
  guint16 command;
  guint8 code;

  if (event->channel != MI_CHANNEL_OTA)
    return TRUE;
  command = mi_reader_u16 (&in);
  code = mi_reader_u8 (&in);
  if (!mi_reader_at_end (&in) || command != COMMAND_RESULT)
    return TRUE;
  return check_code (self, code, error);
}

static gboolean
ota_default (MiProcedure *procedure, const MiInput *in, GError **error)
{
  MiOta *self = (MiOta *) procedure;

  if (in->event->kind == MI_EVENT_RECEIVED)
    return on_notification (self, in->event, error);
  if (mi_procedure_default (procedure, in, error))
    return TRUE;
  if (self->written > 0)
    g_prefix_error (error, "%u of %u blocks written, old firmware stays: ", self->written,
                    self->blocks);
  return FALSE;
}

static gboolean
is_event (const MiInput *in, MiEventKind kind)
{
  return in->event->kind == kind;
}

/* Whether the wait of this state is over. */
static gboolean
wait_is_over (MiProcedure *self, const MiInput *in)
{
  return is_event (in, MI_EVENT_TIMER) && in->event->now_ms >= self->state_deadline_ms;
}

/* --- upload ----------------------------------------------------------------------------------- */

static void
write_window (MiOta *self, MiEffects *effects)
{
  for (guint i = 0; i < self->window && self->written < self->blocks; i++)
    write_block (self, effects);
}

/* Asks for a value: the answer comes after the writes before it were processed. */
static void
read_back (MiOta *self, MiEffects *effects)
{
  self->barrier = self->written;
  mi_effects_add (effects, MI_EFFECT_READ, MI_CHANNEL_OTA);
  mi_procedure_enter (&self->parent, UPLOAD);
}

static void
begin_upload (MiOta *self, MiEffects *effects)
{
  if (self->options.request)
    {
      write_block (self, effects);
      mi_procedure_enter (&self->parent, UPLOAD_REQUEST);
      return;
    }
  write_window (self, effects);
  read_back (self, effects);
  if (self->options.pipelined)
    write_window (self, effects);
}

static gboolean
on_barrier (MiOta *self, const MiEvent *event, MiEffects *effects, GError **error)
{
  MiReader in = MI_READER (event->data, event->len);

  /* An empty value is a barrier, too. */
  if (!check_code (self, mi_reader_u8 (&in), error))
    return FALSE;
  self->confirmed = self->barrier;
  self->barrier = NO_BLOCK;
  add_progress (self, effects);
  if (self->confirmed == self->blocks)
    {
      write_end (self, effects);
      return TRUE;
    }
  if (!self->options.pipelined)
    write_window (self, effects);
  read_back (self, effects);
  if (self->options.pipelined)
    write_window (self, effects);
  return TRUE;
}

static gboolean
on_upload (MiProcedure *procedure, const MiInput *in, MiEffects *effects, GError **error)
{
  MiOta *self = (MiOta *) procedure;

  if (is_event (in, MI_EVENT_VALUE) && in->event->channel == MI_CHANNEL_OTA)
    return on_barrier (self, in->event, effects, error);
  return ota_default (procedure, in, error);
}

static gboolean
on_upload_request (MiProcedure *procedure, const MiInput *in, MiEffects *effects, GError **error)
{
  MiOta *self = (MiOta *) procedure;

  if (!is_event (in, MI_EVENT_WRITTEN))
    return ota_default (procedure, in, error);
  self->confirmed = self->written;
  if (self->confirmed % self->window == 0 || self->confirmed == self->blocks)
    add_progress (self, effects);
  if (self->confirmed == self->blocks)
    {
      write_end (self, effects);
      return TRUE;
    }
  write_block (self, effects);
  mi_procedure_enter (procedure, UPLOAD_REQUEST);
  return TRUE;
}

/* --- before and after ---------------------------------------------------------------------------
 */

static void
begin_start (MiOta *self, MiEffects *effects)
{
  write_command (self, effects, COMMAND_VERSION);
  if (self->options.request)
    {
      mi_procedure_enter (&self->parent, VERSION_REQUEST);
      return;
    }
  write_command (self, effects, COMMAND_START);
  mi_procedure_enter (&self->parent, WAIT_ERASE);
}

static gboolean
on_start (MiProcedure *procedure, const MiInput *in, MiEffects *effects, GError **error)
{
  /* Milliseconds as u16, then a byte of unknown meaning that is 0 (protocol/gatt.md section 4). */
  static const guint8 interval[] = { 30, 0, 0 };
  MiOta *self = (MiOta *) procedure;

  if (!is_event (in, MI_EVENT_START))
    return ota_default (procedure, in, error);
  if (!self->options.set_interval)
    {
      begin_start (self, effects);
      return TRUE;
    }
  mi_effects_write (effects, MI_CHANNEL_INTERVAL, interval, sizeof interval);
  effects->items[0].kind = MI_EFFECT_WRITE_REQUEST;
  mi_procedure_enter (procedure, SET_INTERVAL);
  return TRUE;
}

static gboolean
on_set_interval (MiProcedure *procedure, const MiInput *in, MiEffects *effects, GError **error)
{
  /* A device that refuses it is only slower. */
  if (!is_event (in, MI_EVENT_WRITTEN) && !is_event (in, MI_EVENT_IO_FAILED))
    return ota_default (procedure, in, error);
  mi_procedure_enter (procedure, WAIT_INTERVAL);
  return TRUE;
}

static gboolean
on_wait_interval (MiProcedure *procedure, const MiInput *in, MiEffects *effects, GError **error)
{
  if (!wait_is_over (procedure, in))
    return ota_default (procedure, in, error);
  begin_start ((MiOta *) procedure, effects);
  return TRUE;
}

/* With write requests every write waits for the answer to the one before. */
static gboolean
on_version_request (MiProcedure *procedure, const MiInput *in, MiEffects *effects, GError **error)
{
  if (!is_event (in, MI_EVENT_WRITTEN))
    return ota_default (procedure, in, error);
  write_command ((MiOta *) procedure, effects, COMMAND_START);
  mi_procedure_enter (procedure, START_REQUEST);
  return TRUE;
}

static gboolean
on_start_request (MiProcedure *procedure, const MiInput *in, MiEffects *effects, GError **error)
{
  if (!is_event (in, MI_EVENT_WRITTEN))
    return ota_default (procedure, in, error);
  mi_procedure_enter (procedure, WAIT_ERASE);
  return TRUE;
}

static gboolean
on_wait_erase (MiProcedure *procedure, const MiInput *in, MiEffects *effects, GError **error)
{
  if (!wait_is_over (procedure, in))
    return ota_default (procedure, in, error);
  begin_upload ((MiOta *) procedure, effects);
  return TRUE;
}

/* The end command is out: from here on the device decides, and nothing is an error but its word. */
static gboolean
on_wait_drop (MiProcedure *procedure, const MiInput *in, MiEffects *effects, GError **error)
{
  MiOta *self = (MiOta *) procedure;

  if (is_event (in, MI_EVENT_RECEIVED))
    return on_notification (self, in->event, error);
  self->saw_drop = is_event (in, MI_EVENT_LINK_LOST);
  if (self->saw_drop || wait_is_over (procedure, in))
    mi_procedure_done (procedure, effects);
  return TRUE;
}

static const MiState states[] = {
  [START] = { "start", on_start, .limit_ms = 0 },
  [SET_INTERVAL] = { "set-interval", on_set_interval, .limit_ms = BARRIER_MS },
  [WAIT_INTERVAL] = { "wait-interval", on_wait_interval, .limit_ms = INTERVAL_MS },
  [VERSION_REQUEST] = { "version-request", on_version_request, .limit_ms = BARRIER_MS },
  [START_REQUEST] = { "start-request", on_start_request, .limit_ms = BARRIER_MS },
  [WAIT_ERASE] = { "wait-erase", on_wait_erase, .limit_ms = ERASE_MS },
  [UPLOAD] = { "upload", on_upload, .limit_ms = BARRIER_MS },
  [UPLOAD_REQUEST] = { "upload-request", on_upload_request, .limit_ms = BARRIER_MS },
  [WAIT_DROP] = { "wait-drop", on_wait_drop, .limit_ms = DROP_MS },
};

static const MiProcedureClass ota_class = {
  .name = "ota",
  .size = sizeof (MiOta),
  .states = states,
};

MiProcedure *
mi_ota_new (const guint8 *image, gsize len, const MiOtaOptions *options)
{
  MiOta *self;

  g_return_val_if_fail (image != NULL && options != NULL, NULL);
  g_return_val_if_fail (len >= 1 && len <= (gsize) MAX_BLOCKS * MI_OTA_BLOCK_LEN, NULL);
  g_return_val_if_fail (options->window <= MI_OTA_WINDOW_MAX, NULL);
  self = mi_procedure_alloc (&ota_class, START);
  self->image = image;
  self->len = len;
  self->blocks = (guint32) ((len + MI_OTA_BLOCK_LEN - 1) / MI_OTA_BLOCK_LEN);
  self->options = *options;
  self->window = options->window > 0 ? options->window : MI_OTA_WINDOW_DEFAULT;
  self->barrier = NO_BLOCK;
  return &self->parent;
}

#define OTA_OR(self, value)                                                                        \
  g_return_val_if_fail ((self) != NULL && (self)->klass == &ota_class, (value))

guint32
mi_ota_get_blocks (MiProcedure *self)
{
  OTA_OR (self, 0);
  return ((MiOta *) self)->blocks;
}

gboolean
mi_ota_end_sent (MiProcedure *self)
{
  OTA_OR (self, FALSE);
  return ((MiOta *) self)->end_sent;
}

gboolean
mi_ota_saw_drop (MiProcedure *self)
{
  OTA_OR (self, FALSE);
  return ((MiOta *) self)->saw_drop;
}

guint8
mi_ota_get_code (MiProcedure *self)
{
  OTA_OR (self, 0);
  return ((MiOta *) self)->code;
}
