/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "sim-private.h"

#include <string.h>

/* protocol/gatt.md section 2 */
enum
{
  OP_REGISTER = 0x15,
  OP_LOGIN = 0x24,
  OP_INFO = 0xa2,
  OP_EXPLORE = 0xa4,
};

#define INPUTS_MAX 64
#define INFO_MAX   24

/*
 * The frame layer answers at once, as an interrupt would; everything that needs thought is an input
 * of the scheduler, which looks at all of them in order at its next tick. So an opcode and the
 * announce behind it can meet a procedure that has not begun, as on a real device.
 */

static SimInput *
push_input (SimDevice *self, SimInputKind kind)
{
  SimAuth *auth = &self->auth;
  SimInput *input;

  if (auth->inputs.length >= INPUTS_MAX)
    return NULL;
  input = g_new0 (SimInput, 1);
  input->kind = kind;
  g_queue_push_tail (&auth->inputs, input);
  if (auth->work_ms < 0)
    auth->work_ms = (self->now / SIM_TICK_MS + 1) * SIM_TICK_MS;
  return input;
}

static void
flush_effects (SimDevice *self)
{
  MiEffects *effects = self->auth.effects;

  for (guint i = 0; i < effects->n; i++)
    if (effects->items[i].kind == MI_EFFECT_WRITE)
      sim_device_notify (self, effects->items[i].channel, effects->items[i].data,
                         effects->items[i].len);
  mi_effects_reset (effects);
}

static void
take_event (SimDevice *self, const MiFrameEvent *event)
{
  SimInput *input = NULL;

  switch (event->kind)
    {
    case MI_FRAME_SENT:
      input = push_input (self, SIM_INPUT_SENT);
      break;
    case MI_FRAME_RECEIVED:
      input = push_input (self, SIM_INPUT_RECEIVED);
      if (input != NULL)
        {
          input->len = MIN (event->len, sizeof input->data);
          memcpy (input->data, event->data, input->len);
        }
      break;
    case MI_FRAME_TX_FAILED:
    case MI_FRAME_RX_FAILED:
      input = push_input (self, SIM_INPUT_FAILED);
      break;
    case MI_FRAME_EXPLORED:
      input = push_input (self, SIM_INPUT_EXPLORED);
      break;
    case MI_FRAME_NOTHING:
    case MI_FRAME_MALFORMED:
    default:
      break;
    }
  if (input != NULL)
    input->type = event->type;
  flush_effects (self);
}

/* For the procedures */

void
sim_auth_send (SimDevice *self, guint8 type, const guint8 *data, gsize len)
{
  if (!mi_frame_send (self->auth.frame, type, data, len, self->now, self->auth.effects))
    g_debug ("%s: message %02x not sent", self->address, type);
  flush_effects (self);
}

void
sim_auth_expect (SimDevice *self, guint8 type, gsize max)
{
  MiFrameEvent event = mi_frame_expect (self->auth.frame, type, max, self->now, self->auth.effects);

  take_event (self, &event);
}

void
sim_auth_answer (SimDevice *self, guint32 opcode)
{
  guint8 data[4];

  mi_put_u32 (data, opcode);
  sim_device_notify (self, MI_CHANNEL_CONTROL, data, sizeof data);
}

static void
begin (SimDevice *self, SimProcedure procedure)
{
  self->auth.procedure = procedure;
  self->auth.limit_ms = self->now + SIM_PROCEDURE_MS;
  self->auth.deaf = FALSE;
  mi_crypto_wipe (&self->auth.x, sizeof self->auth.x);
}

void
sim_auth_end (SimDevice *self, guint32 opcode)
{
  SimAuth *auth = &self->auth;

  auth->procedure = SIM_PROCEDURE_NONE;
  auth->limit_ms = -1;
  auth->deaf = FALSE;
  mi_crypto_wipe (&auth->x, sizeof auth->x);
  mi_frame_reset (auth->frame);
  if (opcode != 0)
    sim_auth_answer (self, opcode);
}

void
sim_auth_swallow (SimDevice *self)
{
  self->auth.deaf = TRUE;
  mi_frame_reset (self->auth.frame);
}

/* Device info (protocol/registration.md section 1) */

static void
start_info (SimDevice *self)
{
  guint8 info[INFO_MAX];

  begin (self, SIM_PROCEDURE_INFO);
  mi_put_u16 (info, (guint16) self->firmware.auth_version);
  mi_put_u16 (info + 2, self->config.io_capability);
  memcpy (info + 4, self->keys.did, MI_DID_LEN);
  sim_auth_send (self, MI_MESSAGE_PASS_THROUGH, info, self->keys.has_did ? INFO_MAX : 4);
}

static void start_opcode (SimDevice *self, guint32 opcode);

/* No reset of the frame: the announce of what follows may be there already. */
static void
end_info (SimDevice *self)
{
  SimAuth *auth = &self->auth;
  guint32 kept = auth->kept_opcode;

  auth->procedure = SIM_PROCEDURE_NONE;
  auth->limit_ms = -1;
  auth->kept_opcode = 0;
  if (kept != 0)
    start_opcode (self, kept);
}

/* Opcodes */

static void
start_explore (SimDevice *self)
{
  if (self->config.generation < 2)
    return;
  begin (self, SIM_PROCEDURE_EXPLORE);
  mi_frame_explore (self->auth.frame, self->now, self->auth.effects);
  flush_effects (self);
}

static void
start_opcode (SimDevice *self, guint32 opcode)
{
  switch (opcode & 0xff)
    {
    case OP_INFO:
      if (opcode == OP_INFO)
        start_info (self);
      break;
    case OP_EXPLORE:
      if (opcode == OP_EXPLORE)
        start_explore (self);
      break;
    case OP_LOGIN:
      if (opcode != OP_LOGIN)
        break;
      begin (self, SIM_PROCEDURE_LOGIN);
      sim_login_start (self);
      break;
    case OP_REGISTER:
      if ((opcode & 0xffff0000) != 0)
        break;
      begin (self, SIM_PROCEDURE_REGISTER);
      sim_register_start (self, opcode);
      break;
    default:
      break;
    }
}

static void
on_opcode (SimDevice *self, const SimInput *input)
{
  switch (self->auth.procedure)
    {
    case SIM_PROCEDURE_NONE:
      start_opcode (self, input->opcode);
      break;
    case SIM_PROCEDURE_INFO:
      self->auth.kept_opcode = input->opcode;
      break;
    case SIM_PROCEDURE_REGISTER:
      sim_register_input (self, input);
      break;
    case SIM_PROCEDURE_EXPLORE:
    case SIM_PROCEDURE_LOGIN:
    default:
      break;
    }
}

static void
on_input (SimDevice *self, const SimInput *input)
{
  if (self->auth.deaf)
    return;
  if (input->kind == SIM_INPUT_OPCODE)
    {
      on_opcode (self, input);
      return;
    }
  switch (self->auth.procedure)
    {
    case SIM_PROCEDURE_EXPLORE:
      if (input->kind == SIM_INPUT_EXPLORED)
        end_info (self);
      break;
    case SIM_PROCEDURE_INFO:
      if (input->kind == SIM_INPUT_SENT || input->kind == SIM_INPUT_FAILED)
        end_info (self);
      break;
    case SIM_PROCEDURE_REGISTER:
      sim_register_input (self, input);
      break;
    case SIM_PROCEDURE_LOGIN:
      sim_login_input (self, input);
      break;
    case SIM_PROCEDURE_NONE:
    default:
      break;
    }
}

/* Packets */

void
sim_auth_opcode (SimDevice *self, const guint8 *data, gsize len)
{
  guint8 word[4] = { 0 };
  SimInput *input;

  if (len == 0 || len > sizeof word)
    return;
  memcpy (word, data, len);
  input = push_input (self, SIM_INPUT_OPCODE);
  if (input != NULL)
    input->opcode = mi_get_u32 (word);
}

/* A fault that refuses one message of the host. */
static gboolean
refuse_message (SimDevice *self, guint16 channel, const guint8 *data, gsize len)
{
  guint8 answer[4] = { 0, 0, MI_FRAME_ACK, MI_ACK_BUSY };
  MiFrameView view;
  SimFault fault;

  if (!mi_frame_decode (data, len, &view) || view.sn != 0)
    return FALSE;
  if (view.mode != MI_FRAME_ANNOUNCE && view.mode != MI_FRAME_SINGLE)
    return FALSE;
  if (!sim_faults_take_message (&self->faults, view.type, &fault))
    return FALSE;
  if (view.mode == MI_FRAME_SINGLE)
    answer[2] = MI_FRAME_SINGLE_ACK;
  if (fault.kind == SIM_FAULT_TIMEOUT)
    answer[3] = MI_ACK_TIMEOUT;
  else if (fault.kind == SIM_FAULT_CANCEL)
    answer[3] = MI_ACK_CANCEL;
  sim_device_notify (self, channel, answer, sizeof answer);
  return TRUE;
}

void
sim_auth_data (SimDevice *self, const guint8 *data, gsize len)
{
  MiFrameEvent event;

  if (self->auth.deaf || refuse_message (self, MI_CHANNEL_AUTH, data, len))
    return;
  event = mi_frame_feed (self->auth.frame, data, len, self->now, self->auth.effects);
  take_event (self, &event);
}

void
sim_dfu_data (SimDevice *self, const guint8 *data, gsize len)
{
  MiFrameEvent event;

  if (!self->auth.logged_in || refuse_message (self, MI_CHANNEL_DFU_DATA, data, len))
    return;
  event = mi_frame_feed (self->auth.dfu_frame, data, len, self->now, self->auth.effects);
  flush_effects (self);
  sim_dfu_event (self, &event);
}

void
sim_dfu_expect (SimDevice *self, gsize max)
{
  MiFrameEvent event = mi_frame_expect (self->auth.dfu_frame, MI_MESSAGE_PASS_THROUGH, max,
                                        self->now, self->auth.effects);

  flush_effects (self);
  sim_dfu_event (self, &event);
}

/* Link */

static MiFrame *
new_frame (SimDevice *self, guint16 channel)
{
  MiFrameRole role = self->config.generation == 1 ? MI_ROLE_DEVICE_GEN1 : MI_ROLE_DEVICE_GEN2;
  MiFrame *frame = mi_frame_new (channel, role, &self->auth.sizes);

  mi_frame_set_fill_quirk (frame, self->config.fill_quirk);
  return frame;
}

void
sim_auth_connected (SimDevice *self)
{
  SimAuth *auth = &self->auth;
  guint16 att = self->config.att > 0 ? self->config.att : self->att;

  auth->sizes = (MiSizes) MI_SIZES_INIT (att);
  auth->frame = new_frame (self, MI_CHANNEL_AUTH);
  auth->dfu_frame = new_frame (self, MI_CHANNEL_DFU_DATA);
  auth->effects = g_new (MiEffects, 1);
  mi_effects_reset (auth->effects);
  auth->logged_in = FALSE;
}

void
sim_auth_disconnected (SimDevice *self)
{
  SimAuth *auth = &self->auth;

  g_clear_pointer (&auth->frame, mi_frame_free);
  g_clear_pointer (&auth->dfu_frame, mi_frame_free);
  if (auth->effects != NULL)
    mi_crypto_wipe (auth->effects->arena, sizeof auth->effects->arena);
  g_clear_pointer (&auth->effects, g_free);
  g_queue_clear_full (&auth->inputs, g_free);
  auth->procedure = SIM_PROCEDURE_NONE;
  auth->work_ms = auth->limit_ms = -1;
  auth->kept_opcode = 0;
  auth->deaf = auth->logged_in = FALSE;
  mi_crypto_wipe (&auth->x, sizeof auth->x);
}

/* Time */

gint64
sim_auth_deadline (SimDevice *self)
{
  SimAuth *auth = &self->auth;
  gint64 deadline = sim_earlier (auth->work_ms, auth->limit_ms);

  if (auth->frame == NULL)
    return -1;
  deadline = sim_earlier (deadline, mi_frame_deadline (auth->frame));
  return sim_earlier (deadline, mi_frame_deadline (auth->dfu_frame));
}

static gboolean
is_due (SimDevice *self, gint64 time_ms)
{
  return time_ms >= 0 && time_ms <= self->now;
}

static void
tick_frames (SimDevice *self)
{
  SimAuth *auth = &self->auth;
  MiFrameEvent event;

  if (is_due (self, mi_frame_deadline (auth->frame)))
    {
      event = mi_frame_tick (auth->frame, self->now, auth->effects);
      take_event (self, &event);
    }
  if (is_due (self, mi_frame_deadline (auth->dfu_frame)))
    {
      event = mi_frame_tick (auth->dfu_frame, self->now, auth->effects);
      flush_effects (self);
      sim_dfu_event (self, &event);
    }
}

static void
work (SimDevice *self)
{
  SimAuth *auth = &self->auth;
  GQueue inputs = auth->inputs;

  g_queue_init (&auth->inputs);
  auth->work_ms = -1;
  for (SimInput *input = g_queue_pop_head (&inputs); input != NULL;
       input = g_queue_pop_head (&inputs))
    {
      on_input (self, input);
      mi_crypto_wipe (input, sizeof *input);
      g_free (input);
    }
}

void
sim_auth_tick (SimDevice *self)
{
  SimAuth *auth = &self->auth;

  if (auth->frame == NULL)
    return;
  tick_frames (self);
  if (is_due (self, auth->work_ms))
    work (self);
  if (is_due (self, auth->limit_ms))
    sim_auth_end (self, 0);
}
