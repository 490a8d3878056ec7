/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "mi-info.h"

#include "mi-auth-private.h"
#include "mi-bytes.h"

#include <string.h>

/* Longest device info that is looked at; version 3 has further, unverified fields. */
#define INFO_MAX 128

typedef struct
{
  MiAuth auth;
  MiDeviceInfo info;
} MiInfo;

enum
{
  START,
  EXPLORE,
  READ,
};

gboolean
mi_device_info_parse (const guint8 *data, gsize len, MiDeviceInfo *out, GError **error)
{
  MiReader in = MI_READER (data, len);
  const guint8 *did;

  memset (out, 0, sizeof *out);
  out->auth_version = mi_reader_u16 (&in);
  out->io_capability = mi_reader_u16 (&in);
  if (!mi_reader_ok (&in))
    {
      g_set_error (error, MI_ERROR, MI_ERROR_PROTOCOL,
                   "device info of %" G_GSIZE_FORMAT " bytes, at least 4 wanted", len);
      return FALSE;
    }
  if (mi_reader_left (&in) == MI_DID_LEN)
    {
      did = mi_reader_take (&in, MI_DID_LEN);
      memcpy (out->did, did, MI_DID_LEN);
      out->has_did = TRUE;
    }
  return TRUE;
}

char *
mi_did_to_text (const guint8 did[MI_DID_LEN])
{
  char *text = g_malloc (MI_DID_LEN + 1);
  gsize n = 0;

  for (gsize i = 0; i < MI_DID_LEN; i++)
    if (did[i] != 0)
      text[n++] = g_ascii_isprint ((char) did[i]) ? (char) did[i] : '?';
  text[n] = '\0';
  return text;
}

gboolean
mi_did_from_text (const char *text, guint8 did[MI_DID_LEN])
{
  gsize len;

  g_return_val_if_fail (text != NULL && did != NULL, FALSE);
  len = strlen (text);
  if (len == 0 || len > MI_DID_LEN)
    return FALSE;
  memset (did, 0, MI_DID_LEN);
  memcpy (did + MI_DID_LEN - len, text, len);
  return TRUE;
}

static void
ask (MiInfo *self, MiEffects *effects)
{
  mi_auth_write_opcode (effects, MI_OPCODE_READ_INFO);
  mi_auth_expect (&self->auth, MI_MESSAGE_PASS_THROUGH, INFO_MAX, effects);
  mi_procedure_enter (&self->auth.parent, READ);
}

static gboolean
on_start (MiProcedure *procedure, const MiInput *in, MiEffects *effects, GError **error)
{
  MiInfo *self = (MiInfo *) procedure;

  if (!mi_input_is_event (in, MI_EVENT_START))
    return mi_auth_default (procedure, in, error);
  if (mi_auth_begin_explore (&self->auth, effects))
    mi_procedure_enter (procedure, EXPLORE);
  else
    ask (self, effects);
  return TRUE;
}

static gboolean
on_explore (MiProcedure *procedure, const MiInput *in, MiEffects *effects, GError **error)
{
  if (in->kind != MI_INPUT_EXPLORED)
    return mi_auth_default (procedure, in, error);
  ask ((MiInfo *) procedure, effects);
  return TRUE;
}

static gboolean
on_read (MiProcedure *procedure, const MiInput *in, MiEffects *effects, GError **error)
{
  MiInfo *self = (MiInfo *) procedure;

  if (!mi_input_is_message (in, MI_MESSAGE_PASS_THROUGH))
    return mi_auth_default (procedure, in, error);
  if (!mi_device_info_parse (in->data, in->len, &self->info, error))
    return FALSE;
  mi_procedure_done (procedure, effects);
  return TRUE;
}

static const MiState states[] = {
  [START] = { "start", on_start, .limit_ms = 0 },
  [EXPLORE] = { "explore", on_explore, .limit_ms = MI_AUTH_EXPLORE_LIMIT_MS },
  [READ] = { "info", on_read, .limit_ms = 10000 },
};

static const MiProcedureClass info_class = {
  .name = "info",
  .size = sizeof (MiInfo),
  .states = states,
  .dispatch = mi_auth_dispatch,
  .deadline = mi_auth_deadline,
  .clear = mi_auth_clear,
};

MiProcedure *
mi_info_new (MiSizes *sizes, gboolean explore)
{
  g_return_val_if_fail (sizes != NULL, NULL);
  return mi_auth_alloc (&info_class, START, sizes, explore);
}

const MiDeviceInfo *
mi_info_get_result (MiProcedure *self)
{
  g_return_val_if_fail (self != NULL && self->klass == &info_class, NULL);
  return &((MiInfo *) self)->info;
}
