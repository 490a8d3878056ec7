/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "mi-login.h"

#include "mi-auth-private.h"
#include "mi-bytes.h"
#include "mi-crypto.h"

#include <string.h>

#define CONFIRMATION_LEN 32
#define COUNTER_LEN      2
#define TAG_LEN          4
#define NONCE_LEN        12

typedef struct
{
  MiAuth auth;
  MiRandomFunc random;
  gpointer random_data;
  guint8 token[MI_TOKEN_LEN];
  guint8 app_random[MI_RANDOM_LEN];
  guint8 device_random[MI_RANDOM_LEN];
  MiSession session;
  gboolean was_already;
} MiLogin;

enum
{
  START,
  EXPLORE,
  SEND_RANDOM,
  EXPECT_RANDOM,
  EXPECT_CONFIRMATION,
  SEND_CONFIRMATION,
  VERDICT,
};

/* HMAC over two randoms, in the order given. */
static gboolean
confirmation (const guint8 key[16], const guint8 *first, const guint8 *second,
              guint8 out[CONFIRMATION_LEN], GError **error)
{
  guint8 both[2 * MI_RANDOM_LEN];

  memcpy (both, first, MI_RANDOM_LEN);
  memcpy (both + MI_RANDOM_LEN, second, MI_RANDOM_LEN);
  return mi_crypto_hmac_sha256 (key, 16, both, sizeof both, out, error);
}

static gboolean
begin (MiLogin *self, MiEffects *effects, GError **error)
{
  if (!self->random (self->app_random, sizeof self->app_random, self->random_data))
    {
      g_set_error (error, MI_ERROR, MI_ERROR_CRYPTO, "no random bytes");
      return FALSE;
    }
  mi_auth_write_opcode (effects, MI_OPCODE_LOGIN);
  mi_procedure_enter (&self->auth.parent, SEND_RANDOM);
  return mi_auth_send (&self->auth, MI_MESSAGE_APP_RANDOM, self->app_random,
                       sizeof self->app_random, effects, error);
}

static gboolean
on_start (MiProcedure *procedure, const MiInput *in, MiEffects *effects, GError **error)
{
  MiLogin *self = (MiLogin *) procedure;

  if (!mi_input_is_event (in, MI_EVENT_START))
    return mi_auth_default (procedure, in, error);
  if (!mi_auth_begin_explore (&self->auth, effects))
    return begin (self, effects, error);
  mi_procedure_enter (procedure, EXPLORE);
  return TRUE;
}

static gboolean
on_explore (MiProcedure *procedure, const MiInput *in, MiEffects *effects, GError **error)
{
  if (in->kind != MI_INPUT_EXPLORED)
    return mi_auth_default (procedure, in, error);
  return begin ((MiLogin *) procedure, effects, error);
}

static gboolean
already_logged_in (MiLogin *self, MiEffects *effects)
{
  self->was_already = TRUE;
  mi_procedure_done (&self->auth.parent, effects);
  return TRUE;
}

static gboolean
on_send_random (MiProcedure *procedure, const MiInput *in, MiEffects *effects, GError **error)
{
  MiLogin *self = (MiLogin *) procedure;

  if (mi_input_is_opcode (in, MI_OPCODE_ALREADY_LOGGED_IN))
    return already_logged_in (self, effects);
  if (!mi_input_is_sent (in, MI_MESSAGE_APP_RANDOM))
    return mi_auth_default (procedure, in, error);
  mi_procedure_enter (procedure, EXPECT_RANDOM);
  mi_auth_expect (&self->auth, MI_MESSAGE_DEVICE_RANDOM, MI_RANDOM_LEN, effects);
  return TRUE;
}

static gboolean
on_expect_random (MiProcedure *procedure, const MiInput *in, MiEffects *effects, GError **error)
{
  MiLogin *self = (MiLogin *) procedure;

  /* The two characteristics have no order between them: E2 may come after the acknowledgement. */
  if (mi_input_is_opcode (in, MI_OPCODE_ALREADY_LOGGED_IN))
    return already_logged_in (self, effects);
  if (!mi_input_is_message (in, MI_MESSAGE_DEVICE_RANDOM))
    return mi_auth_default (procedure, in, error);
  if (!mi_auth_check_length (procedure, in, MI_RANDOM_LEN, error))
    return FALSE;
  memcpy (self->device_random, in->data, MI_RANDOM_LEN);
  if (!mi_session_derive (&self->session, self->token, self->app_random, self->device_random,
                          error))
    return FALSE;
  mi_procedure_enter (procedure, EXPECT_CONFIRMATION);
  mi_auth_expect (&self->auth, MI_MESSAGE_DEVICE_CONFIRMATION, CONFIRMATION_LEN, effects);
  return TRUE;
}

static gboolean
on_expect_confirmation (MiProcedure *procedure, const MiInput *in, MiEffects *effects,
                        GError **error)
{
  MiLogin *self = (MiLogin *) procedure;
  guint8 expected[CONFIRMATION_LEN];
  guint8 ours[CONFIRMATION_LEN];

  if (!mi_input_is_message (in, MI_MESSAGE_DEVICE_CONFIRMATION))
    return mi_auth_default (procedure, in, error);
  if (!mi_auth_check_length (procedure, in, CONFIRMATION_LEN, error))
    return FALSE;
  if (!confirmation (self->session.dev_key, self->device_random, self->app_random, expected, error))
    return FALSE;
  if (!mi_crypto_equal (expected, in->data, CONFIRMATION_LEN))
    {
      g_set_error (error, MI_ERROR, MI_ERROR_WRONG_TOKEN,
                   "the device's confirmation does not match");
      return FALSE;
    }
  if (!confirmation (self->session.app_key, self->app_random, self->device_random, ours, error))
    return FALSE;
  mi_procedure_enter (procedure, SEND_CONFIRMATION);
  return mi_auth_send (&self->auth, MI_MESSAGE_APP_CONFIRMATION, ours, sizeof ours, effects, error);
}

static gboolean
on_verdict (MiProcedure *procedure, const MiInput *in, MiEffects *effects, GError **error)
{
  if (mi_input_is_opcode (in, MI_OPCODE_LOGGED_IN))
    {
      mi_procedure_done (procedure, effects);
      return TRUE;
    }
  if (mi_input_is_opcode (in, MI_OPCODE_LOGIN_FAILED))
    {
      g_set_error (error, MI_ERROR, MI_ERROR_LOGIN_REFUSED, "device answered 0x%02x: refused",
                   in->opcode);
      return FALSE;
    }
  return mi_auth_default (procedure, in, error);
}

static gboolean
on_send_confirmation (MiProcedure *procedure, const MiInput *in, MiEffects *effects, GError **error)
{
  MiLogin *self = (MiLogin *) procedure;

  if (mi_auth_await_last (&self->auth, in, MI_MESSAGE_APP_CONFIRMATION, MI_OPCODE_LOGGED_IN,
                          MI_OPCODE_LOGIN_FAILED, VERDICT))
    return TRUE;
  return on_verdict (procedure, in, effects, error);
}

static const MiState states[] = {
  [START] = { "start", on_start, .limit_ms = 0 },
  [EXPLORE] = { "explore", on_explore, .limit_ms = MI_AUTH_EXPLORE_LIMIT_MS },
  [SEND_RANDOM] = { "send-random", on_send_random, .limit_ms = 15000 },
  [EXPECT_RANDOM] = { "expect-random", on_expect_random, .limit_ms = 15000 },
  [EXPECT_CONFIRMATION] = { "expect-confirmation", on_expect_confirmation, .limit_ms = 15000 },
  [SEND_CONFIRMATION] = { "send-confirmation", on_send_confirmation, .limit_ms = 15000 },
  [VERDICT] = { "verdict", on_verdict, .limit_ms = 15000 },
};

static const MiProcedureClass login_class = {
  .name = "login",
  .size = sizeof (MiLogin),
  .states = states,
  .dispatch = mi_auth_dispatch,
  .deadline = mi_auth_deadline,
  .clear = mi_auth_clear,
};

MiProcedure *
mi_login_new (MiSizes *sizes, const guint8 token[MI_TOKEN_LEN], MiRandomFunc random,
              gpointer random_data, gboolean explore)
{
  MiLogin *self;

  g_return_val_if_fail (sizes != NULL && token != NULL && random != NULL, NULL);
  self = mi_auth_alloc (&login_class, START, sizes, explore);
  self->random = random;
  self->random_data = random_data;
  memcpy (self->token, token, MI_TOKEN_LEN);
  return &self->auth.parent;
}

gboolean
mi_login_was_already (MiProcedure *self)
{
  g_return_val_if_fail (self != NULL && self->klass == &login_class, FALSE);
  return ((MiLogin *) self)->was_already;
}

gboolean
mi_login_get_session (MiProcedure *self, MiSession *out)
{
  MiLogin *login = (MiLogin *) self;

  g_return_val_if_fail (self != NULL && self->klass == &login_class && out != NULL, FALSE);
  if (!self->finished || self->error != NULL || login->was_already)
    return FALSE;
  *out = login->session;
  return TRUE;
}

gboolean
mi_session_derive (MiSession *self, const guint8 token[MI_TOKEN_LEN],
                   const guint8 app_random[MI_RANDOM_LEN],
                   const guint8 device_random[MI_RANDOM_LEN], GError **error)
{
  static const char info[] = "mible-login-info";
  guint8 salt[2 * MI_RANDOM_LEN];
  guint8 keys[64];

  memcpy (salt, app_random, MI_RANDOM_LEN);
  memcpy (salt + MI_RANDOM_LEN, device_random, MI_RANDOM_LEN);
  if (!mi_crypto_hkdf_sha256 (token, MI_TOKEN_LEN, salt, sizeof salt, (const guint8 *) info,
                              strlen (info), keys, sizeof keys, error))
    return FALSE;
  memset (self, 0, sizeof *self);
  memcpy (self->dev_key, keys, 16);
  memcpy (self->app_key, keys + 16, 16);
  memcpy (self->dev_iv, keys + 32, 4);
  memcpy (self->app_iv, keys + 36, 4);
  mi_crypto_wipe (keys, sizeof keys);
  return TRUE;
}

static void
make_nonce (const guint8 iv[4], guint32 counter, guint8 nonce[NONCE_LEN])
{
  memcpy (nonce, iv, 4);
  memset (nonce + 4, 0, 4);
  mi_put_u32 (nonce + 8, counter);
}

gboolean
mi_session_seal (MiSession *self, const guint8 *plain, gsize len, guint8 *out, GError **error)
{
  guint32 counter = self->sent + 1;
  guint8 nonce[NONCE_LEN];

  if (self->sent == G_MAXUINT32)
    {
      g_set_error (error, MI_ERROR, MI_ERROR_CRYPTO, "session counter used up");
      return FALSE;
    }
  make_nonce (self->app_iv, counter, nonce);
  if (!mi_crypto_ccm_seal (self->app_key, nonce, sizeof nonce, NULL, 0, plain, len,
                           out + COUNTER_LEN, error))
    return FALSE;
  mi_put_u16 (out, (guint16) counter);
  self->sent = counter;
  return TRUE;
}

gboolean
mi_session_open (MiSession *self, const guint8 *sealed, gsize len, guint8 *out, GError **error)
{
  MiReader in = MI_READER (sealed, len);
  guint32 low = mi_reader_u16 (&in);
  gsize body_len = mi_reader_left (&in);
  const guint8 *body = mi_reader_take (&in, body_len);
  guint64 counter = (self->received & 0xffff0000u) | low;
  guint8 nonce[NONCE_LEN];

  if (!mi_reader_ok (&in) || body_len < TAG_LEN)
    {
      g_set_error (error, MI_ERROR, MI_ERROR_PROTOCOL,
                   "session message of %" G_GSIZE_FORMAT " bytes", len);
      return FALSE;
    }
  /* Only the lower half travels: one rollover is recognised (protocol/login.md section 4). */
  if (low < 0x8000 && (self->received & 0xffff) > 0x7fff)
    counter += 0x10000;
  if (counter <= self->received || counter > G_MAXUINT32)
    {
      g_set_error (error, MI_ERROR, MI_ERROR_PROTOCOL,
                   "session counter %" G_GUINT64_FORMAT " after %u", counter, self->received);
      return FALSE;
    }
  make_nonce (self->dev_iv, (guint32) counter, nonce);
  if (!mi_crypto_ccm_open (self->dev_key, nonce, sizeof nonce, NULL, 0, body, body_len, out, error))
    return FALSE;
  self->received = (guint32) counter;
  return TRUE;
}
