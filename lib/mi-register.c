/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "mi-register.h"

#include "mi-auth-private.h"
#include "mi-bytes.h"
#include "mi-certificate.h"
#include "mi-crypto.h"

#include <string.h>

#define PUBLIC_KEY_LEN   64
#define SECRET_LEN       32
#define CONFIRMATION_LEN 32
#define SIGNATURE_LEN    64
#define OOB_LEN          16
#define DID_KEY_LEN      16
#define TAG_LEN          4
/* DID, signature, UTC (protocol/registration.md section 4). */
#define CREDENTIAL_LEN (MI_DID_LEN + SIGNATURE_LEN + 4)
/* Limits that count from the start opcode: the device's own, and the one for a credential, which
 * leaves time for sending it. */
#define WHOLE_LIMIT_MS      30000
#define CREDENTIAL_LIMIT_MS 18000

typedef struct
{
  MiAuth auth;
  MiRandomFunc random;
  gpointer random_data;
  gboolean can_credential;
  gboolean has_did_override;
  guint8 did_override[MI_DID_LEN];
  gboolean has_oob;
  guint8 oob_method;
  guint8 oob[OOB_LEN];

  MiDeviceInfo info;
  gboolean has_info;
  MiEcKey *key;
  gint64 credential_deadline_ms;
  gboolean verified_sent; /* opcode 13 was written: the device may hold the keys from now on */
  guint8 secret[SECRET_LEN];
  guint8 did_key[DID_KEY_LEN];
  guint8 device_confirmation[CONFIRMATION_LEN];
  guint8 host_random[MI_RANDOM_LEN];
  MiKeys keys;
  guint8 credential[CREDENTIAL_LEN];
  guint8 *certificate;
  gsize certificate_len;
} MiRegister;

enum
{
  START,
  EXPLORE,
  INFO,
  SEND_KEY,
  EXPECT_KEY,
  OOB_EXPECT_CONFIRMATION,
  OOB_SEND_CONFIRMATION,
  OOB_EXPECT_RANDOM,
  OOB_SEND_RANDOM,
  PERSIST_PENDING,
  SEND_DID,
  WAIT_CREDENTIAL,
  PERSIST_DID,
  SEND_CREDENTIAL,
  SEND_CERTIFICATE,
  VERDICT,
  PERSIST_CURRENT,
};

/* What every state does with what it does not want itself. */
static gboolean
register_default (MiProcedure *procedure, const MiInput *in, GError **error)
{
  MiRegister *self = (MiRegister *) procedure;
  gboolean oob = self->has_oob && !self->verified_sent;

  if (!mi_input_is_opcode (in, MI_OPCODE_REGISTRATION_FAILED))
    return mi_auth_default (procedure, in, error);
  g_set_error (error, MI_ERROR, oob ? MI_ERROR_OOB_REFUSED : MI_ERROR_REGISTRATION_REFUSED,
               "device answered 0x%02x in state %s: %s", in->opcode,
               mi_procedure_get_state_name (procedure),
               oob ? "out-of-band value refused" : "registration refused");
  return FALSE;
}

/* The host's word that it gives up: the device ends its procedure instead of waiting 30 s. */
static void
give_up (MiEffects *effects)
{
  mi_auth_write_opcode (effects, MI_OPCODE_NOT_VERIFIED);
}

static gboolean
draw (MiRegister *self, guint8 *out, gsize len, GError **error)
{
  if (self->random (out, len, self->random_data))
    return TRUE;
  g_set_error (error, MI_ERROR, MI_ERROR_CRYPTO, "no random bytes");
  return FALSE;
}

/* --- device info -------------------------------------------------------------------------- */

static void
ask_info (MiRegister *self, MiEffects *effects)
{
  mi_auth_write_opcode (effects, MI_OPCODE_READ_INFO);
  mi_procedure_enter (&self->auth.parent, INFO);
  mi_auth_expect (&self->auth, MI_MESSAGE_PASS_THROUGH, 128, effects);
}

static gboolean
on_start (MiProcedure *procedure, const MiInput *in, MiEffects *effects, GError **error)
{
  MiRegister *self = (MiRegister *) procedure;

  if (!mi_input_is_event (in, MI_EVENT_START))
    return register_default (procedure, in, error);
  if (mi_auth_begin_explore (&self->auth, effects))
    mi_procedure_enter (procedure, EXPLORE);
  else
    ask_info (self, effects);
  return TRUE;
}

static gboolean
on_explore (MiProcedure *procedure, const MiInput *in, MiEffects *effects, GError **error)
{
  if (in->kind != MI_INPUT_EXPLORED)
    return register_default (procedure, in, error);
  ask_info ((MiRegister *) procedure, effects);
  return TRUE;
}

/* Whether this authentication version can be registered here at all. */
static gboolean
check_version (MiRegister *self, GError **error)
{
  g_autofree char *did = NULL;

  if (self->info.auth_version == 1)
    return TRUE;
  if (self->info.auth_version == 2 && self->can_credential)
    return TRUE;
  did = mi_did_to_text (self->info.did);
  if (self->info.auth_version == 2)
    g_set_error (error, MI_ERROR, MI_ERROR_CREDENTIAL_NEEDED,
                 "authentication version 2 wants a credential of the vendor's server (DID \"%s\")",
                 did);
  else
    g_set_error (error, MI_ERROR, MI_ERROR_UNSUPPORTED,
                 "authentication version %u is not supported (io capability 0x%04x, DID \"%s\")",
                 self->info.auth_version, self->info.io_capability, did);
  return FALSE;
}

static gboolean
start_registration (MiRegister *self, MiEffects *effects, GError **error)
{
  guint8 public_key[PUBLIC_KEY_LEN];
  guint32 method = self->has_oob ? self->oob_method : 0;

  self->key = mi_ec_key_new (self->random, self->random_data, error);
  if (self->key == NULL || !mi_ec_key_public (self->key, public_key, error))
    return FALSE;
  mi_auth_write_opcode (effects, MI_OPCODE_REGISTER | method << 8);
  self->auth.overall_deadline_ms = self->auth.parent.now_ms + WHOLE_LIMIT_MS;
  self->credential_deadline_ms = self->auth.parent.now_ms + CREDENTIAL_LIMIT_MS;
  mi_procedure_enter (&self->auth.parent, SEND_KEY);
  return mi_auth_send (&self->auth, MI_MESSAGE_PUBLIC_KEY, public_key, sizeof public_key, effects,
                       error);
}

static gboolean
on_info (MiProcedure *procedure, const MiInput *in, MiEffects *effects, GError **error)
{
  MiRegister *self = (MiRegister *) procedure;

  if (!mi_input_is_message (in, MI_MESSAGE_PASS_THROUGH))
    return register_default (procedure, in, error);
  if (!mi_device_info_parse (in->data, in->len, &self->info, error))
    return FALSE;
  self->has_info = TRUE;
  if (!check_version (self, error))
    return FALSE;
  /* A device without capability ignores a method: then there is no out-of-band exchange. */
  if (self->info.io_capability == 0)
    self->has_oob = FALSE;
  return start_registration (self, effects, error);
}

/* --- keys --------------------------------------------------------------------------------- */

static gboolean
on_send_key (MiProcedure *procedure, const MiInput *in, MiEffects *effects, GError **error)
{
  MiRegister *self = (MiRegister *) procedure;

  if (!mi_input_is_sent (in, MI_MESSAGE_PUBLIC_KEY))
    return register_default (procedure, in, error);
  mi_procedure_enter (procedure, EXPECT_KEY);
  mi_auth_expect (&self->auth, MI_MESSAGE_PUBLIC_KEY, PUBLIC_KEY_LEN, effects);
  return TRUE;
}

/* The DID as far as it is known now: the device's own goes before a fresh one. */
static gboolean
choose_did (MiRegister *self, GError **error)
{
  static const char letters[] = "0123456789abcdefghijklmnopqrstuvwxyz";
  const guint n_letters = sizeof letters - 1;
  guint8 *did = self->keys.did;
  guint8 byte;

  self->keys.has_did = TRUE;
  if (self->has_did_override)
    memcpy (did, self->did_override, MI_DID_LEN);
  else if (self->info.has_did)
    memcpy (did, self->info.did, MI_DID_LEN);
  else if (self->info.auth_version == 2)
    self->keys.has_did = FALSE; /* the vendor's server names it, with the credential */
  else
    {
      /* The form that devices without a DID take (protocol/registration.md section 1). */
      memcpy (did, "\0blt.3.129v------g00", MI_DID_LEN);
      for (guint i = 0; i < 6; i++)
        {
          if (!draw (self, &byte, 1, error))
            return FALSE;
          did[11 + i] = (guint8) letters[byte % n_letters];
        }
    }
  return TRUE;
}

static gboolean
derive (MiRegister *self, MiEffects *effects, GError **error)
{
  static const char info[] = "mible-setup-info";
  static const guint8 zeros[OOB_LEN];
  guint8 out[64];
  MiEffect *effect;

  if (!mi_crypto_hkdf_sha256 (self->secret, sizeof self->secret, self->has_oob ? self->oob : zeros,
                              OOB_LEN, (const guint8 *) info, strlen (info), out, sizeof out,
                              error))
    return FALSE;
  memcpy (self->keys.token, out, MI_TOKEN_LEN);
  memcpy (self->keys.bind_key, out + MI_TOKEN_LEN, MI_BIND_KEY_LEN);
  memcpy (self->did_key, out + MI_TOKEN_LEN + MI_BIND_KEY_LEN, DID_KEY_LEN);
  mi_crypto_wipe (out, sizeof out);
  mi_crypto_wipe (self->secret, sizeof self->secret);
  self->keys.auth_version = self->info.auth_version;
  if (!choose_did (self, error))
    return FALSE;
  effect = mi_effects_add (effects, MI_EFFECT_PERSIST, 0);
  effect->keys = &self->keys;
  effect->key_state = MI_KEY_STATE_PENDING;
  mi_procedure_enter (&self->auth.parent, PERSIST_PENDING);
  return TRUE;
}

static gboolean
on_expect_key (MiProcedure *procedure, const MiInput *in, MiEffects *effects, GError **error)
{
  MiRegister *self = (MiRegister *) procedure;

  if (!mi_input_is_message (in, MI_MESSAGE_PUBLIC_KEY))
    return register_default (procedure, in, error);
  if (!mi_auth_check_length (procedure, in, PUBLIC_KEY_LEN, error))
    return FALSE;
  if (!mi_ec_key_agree (self->key, in->data, self->secret, error))
    return FALSE;
  if (!self->has_oob)
    return derive (self, effects, error);
  mi_procedure_enter (procedure, OOB_EXPECT_CONFIRMATION);
  mi_auth_expect (&self->auth, MI_MESSAGE_DEVICE_CONFIRMATION, CONFIRMATION_LEN, effects);
  return TRUE;
}

/* --- out of band (protocol/registration.md section 5) --------------------------------------- */

static gboolean
oob_hmac (MiRegister *self, const guint8 random[MI_RANDOM_LEN], guint8 out[CONFIRMATION_LEN],
          GError **error)
{
  guint8 both[MI_RANDOM_LEN + OOB_LEN];
  gboolean ok;

  memcpy (both, random, MI_RANDOM_LEN);
  memcpy (both + MI_RANDOM_LEN, self->oob, OOB_LEN);
  ok = mi_crypto_hmac_sha256 (self->secret, sizeof self->secret, both, sizeof both, out, error);
  mi_crypto_wipe (both, sizeof both);
  return ok;
}

static gboolean
on_oob_expect_confirmation (MiProcedure *procedure, const MiInput *in, MiEffects *effects,
                            GError **error)
{
  MiRegister *self = (MiRegister *) procedure;
  guint8 ours[CONFIRMATION_LEN];

  if (!mi_input_is_message (in, MI_MESSAGE_DEVICE_CONFIRMATION))
    return register_default (procedure, in, error);
  if (!mi_auth_check_length (procedure, in, CONFIRMATION_LEN, error))
    return FALSE;
  memcpy (self->device_confirmation, in->data, CONFIRMATION_LEN);
  if (!draw (self, self->host_random, sizeof self->host_random, error)
      || !oob_hmac (self, self->host_random, ours, error))
    return FALSE;
  mi_procedure_enter (procedure, OOB_SEND_CONFIRMATION);
  return mi_auth_send (&self->auth, MI_MESSAGE_APP_CONFIRMATION, ours, sizeof ours, effects, error);
}

static gboolean
on_oob_send_confirmation (MiProcedure *procedure, const MiInput *in, MiEffects *effects,
                          GError **error)
{
  MiRegister *self = (MiRegister *) procedure;

  if (!mi_input_is_sent (in, MI_MESSAGE_APP_CONFIRMATION))
    return register_default (procedure, in, error);
  mi_procedure_enter (procedure, OOB_EXPECT_RANDOM);
  mi_auth_expect (&self->auth, MI_MESSAGE_DEVICE_RANDOM, MI_RANDOM_LEN, effects);
  return TRUE;
}

static gboolean
on_oob_expect_random (MiProcedure *procedure, const MiInput *in, MiEffects *effects, GError **error)
{
  MiRegister *self = (MiRegister *) procedure;
  guint8 expected[CONFIRMATION_LEN];

  if (!mi_input_is_message (in, MI_MESSAGE_DEVICE_RANDOM))
    return register_default (procedure, in, error);
  if (!mi_auth_check_length (procedure, in, MI_RANDOM_LEN, error)
      || !oob_hmac (self, in->data, expected, error))
    return FALSE;
  if (!mi_crypto_equal (expected, self->device_confirmation, CONFIRMATION_LEN))
    {
      give_up (effects);
      g_set_error (error, MI_ERROR, MI_ERROR_OOB_REFUSED,
                   "the device's confirmation does not match the out-of-band value");
      return FALSE;
    }
  mi_procedure_enter (procedure, OOB_SEND_RANDOM);
  return mi_auth_send (&self->auth, MI_MESSAGE_APP_RANDOM, self->host_random,
                       sizeof self->host_random, effects, error);
}

static gboolean
on_oob_send_random (MiProcedure *procedure, const MiInput *in, MiEffects *effects, GError **error)
{
  if (!mi_input_is_sent (in, MI_MESSAGE_APP_RANDOM))
    return register_default (procedure, in, error);
  return derive ((MiRegister *) procedure, effects, error);
}

/* --- making the keys durable, and what makes the device accept them ------------------------- */

/* DID message or credential: AES-CCM under the DID key (protocol/registration.md section 2). */
static gboolean
seal (MiRegister *self, const guint8 *plain, gsize len, guint8 *out, GError **error)
{
  static const guint8 nonce[]
      = { 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1b };
  static const char aad[] = "devID";

  return mi_crypto_ccm_seal (self->did_key, nonce, sizeof nonce, (const guint8 *) aad, strlen (aad),
                             plain, len, out, error);
}

static gboolean
send_did (MiRegister *self, MiEffects *effects, GError **error)
{
  guint8 sealed[MI_DID_LEN + TAG_LEN];

  if (!seal (self, self->keys.did, MI_DID_LEN, sealed, error))
    return FALSE;
  mi_procedure_enter (&self->auth.parent, SEND_DID);
  return mi_auth_send (&self->auth, MI_MESSAGE_PASS_THROUGH, sealed, sizeof sealed, effects, error);
}

/* Later than this a credential could not be sent within the device's own limit. */
static gboolean
credential_too_late (MiEffects *effects, GError **error)
{
  give_up (effects);
  g_set_error (error, MI_ERROR, MI_ERROR_TIMEOUT,
               "no credential within %d ms of the start of the registration", CREDENTIAL_LIMIT_MS);
  return FALSE;
}

static gboolean
need_credential (MiRegister *self, MiEffects *effects, GError **error)
{
  MiEffect *effect;

  /* A slow device, or a slow disk, may have used up the time. */
  if (self->auth.parent.now_ms >= self->credential_deadline_ms)
    return credential_too_late (effects, error);
  effect = mi_effects_add (effects, MI_EFFECT_NEED_CREDENTIAL, 0);
  effect->keys = &self->keys;
  effect->deadline_ms = self->credential_deadline_ms;
  mi_procedure_enter (&self->auth.parent, WAIT_CREDENTIAL);
  self->auth.parent.state_deadline_ms = self->credential_deadline_ms;
  return TRUE;
}

static gboolean
storage_failed (MiRegister *self, MiEffects *effects, GError **error)
{
  give_up (effects);
  g_set_error (error, MI_ERROR, MI_ERROR_STORAGE,
               "the new keys could not be made durable; the device was not given them");
  return FALSE;
}

/* Gives the device the host's word before a wait ends in failure: it is still waiting for one. */
static gboolean
default_before_verified (MiProcedure *procedure, const MiInput *in, MiEffects *effects,
                         GError **error)
{
  if (register_default (procedure, in, error))
    return TRUE;
  if (in->kind == MI_INPUT_EVENT && in->event->kind != MI_EVENT_LINK_LOST)
    give_up (effects);
  return FALSE;
}

static gboolean
on_persist_pending (MiProcedure *procedure, const MiInput *in, MiEffects *effects, GError **error)
{
  MiRegister *self = (MiRegister *) procedure;

  if (mi_input_is_event (in, MI_EVENT_PERSIST_FAILED))
    return storage_failed (self, effects, error);
  if (!mi_input_is_event (in, MI_EVENT_PERSISTED))
    return default_before_verified (procedure, in, effects, error);
  if (self->info.auth_version == 1)
    return send_did (self, effects, error);
  return need_credential (self, effects, error);
}

static void
write_verified (MiRegister *self, MiEffects *effects)
{
  self->verified_sent = TRUE;
  mi_auth_write_opcode (effects, MI_OPCODE_VERIFIED);
}

static gboolean
on_send_did (MiProcedure *procedure, const MiInput *in, MiEffects *effects, GError **error)
{
  if (!mi_input_is_sent (in, MI_MESSAGE_PASS_THROUGH))
    return register_default (procedure, in, error);
  write_verified ((MiRegister *) procedure, effects);
  mi_procedure_enter (procedure, VERDICT);
  return TRUE;
}

/* Version 2: 13 goes out before the data (protocol/registration.md section 4). */
static gboolean
send_credential (MiRegister *self, MiEffects *effects, GError **error)
{
  guint8 sealed[CREDENTIAL_LEN + TAG_LEN];

  if (!seal (self, self->credential, sizeof self->credential, sealed, error))
    return FALSE;
  write_verified (self, effects);
  mi_procedure_enter (&self->auth.parent, SEND_CREDENTIAL);
  return mi_auth_send (&self->auth, MI_MESSAGE_PASS_THROUGH, sealed, sizeof sealed, effects, error);
}

static gboolean
take_credential (MiRegister *self, const MiCredential *credential, MiEffects *effects,
                 GError **error)
{
  MiEffect *effect;

  if (credential == NULL || credential->certificate == NULL || credential->certificate_len == 0
      || credential->certificate_len > MI_FRAME_MAX)
    {
      give_up (effects);
      g_set_error (error, MI_ERROR, MI_ERROR_CREDENTIAL_REFUSED,
                   "credential without a certificate of 1 to %d bytes", MI_FRAME_MAX);
      return FALSE;
    }
  memcpy (self->credential, credential->did, MI_DID_LEN);
  memcpy (self->credential + MI_DID_LEN, credential->signature, SIGNATURE_LEN);
  mi_put_u32 (self->credential + MI_DID_LEN + SIGNATURE_LEN, credential->utc);
  self->certificate = g_memdup2 (credential->certificate, credential->certificate_len);
  self->certificate_len = credential->certificate_len;
  if (self->keys.has_did)
    return send_credential (self, effects, error);
  memcpy (self->keys.did, credential->did, MI_DID_LEN);
  self->keys.has_did = TRUE;
  effect = mi_effects_add (effects, MI_EFFECT_PERSIST, 0);
  effect->keys = &self->keys;
  effect->key_state = MI_KEY_STATE_PENDING;
  mi_procedure_enter (&self->auth.parent, PERSIST_DID);
  return TRUE;
}

static gboolean
on_wait_credential (MiProcedure *procedure, const MiInput *in, MiEffects *effects, GError **error)
{
  MiRegister *self = (MiRegister *) procedure;

  if (mi_input_is_event (in, MI_EVENT_CREDENTIAL))
    return take_credential (self, in->event->credential, effects, error);
  if (mi_input_is_event (in, MI_EVENT_CREDENTIAL_REFUSED))
    {
      give_up (effects);
      g_set_error (error, MI_ERROR, MI_ERROR_CREDENTIAL_REFUSED, "no credential was supplied");
      return FALSE;
    }
  if (mi_input_is_event (in, MI_EVENT_TIMER) && in->event->now_ms >= procedure->state_deadline_ms)
    return credential_too_late (effects, error);
  if (mi_input_is_event (in, MI_EVENT_TIMER))
    return TRUE;
  return default_before_verified (procedure, in, effects, error);
}

static gboolean
on_persist_did (MiProcedure *procedure, const MiInput *in, MiEffects *effects, GError **error)
{
  MiRegister *self = (MiRegister *) procedure;

  if (mi_input_is_event (in, MI_EVENT_PERSIST_FAILED))
    return storage_failed (self, effects, error);
  if (!mi_input_is_event (in, MI_EVENT_PERSISTED))
    return default_before_verified (procedure, in, effects, error);
  return send_credential (self, effects, error);
}

static gboolean
on_send_credential (MiProcedure *procedure, const MiInput *in, MiEffects *effects, GError **error)
{
  MiRegister *self = (MiRegister *) procedure;

  if (!mi_input_is_sent (in, MI_MESSAGE_PASS_THROUGH))
    return register_default (procedure, in, error);
  mi_procedure_enter (procedure, SEND_CERTIFICATE);
  return mi_auth_send (&self->auth, MI_MESSAGE_SERVER_CERTIFICATE, self->certificate,
                       self->certificate_len, effects, error);
}

/* --- verdict -------------------------------------------------------------------------------- */

static gboolean
on_verdict (MiProcedure *procedure, const MiInput *in, MiEffects *effects, GError **error)
{
  MiRegister *self = (MiRegister *) procedure;
  MiEffect *effect;

  if (!mi_input_is_opcode (in, MI_OPCODE_REGISTERED))
    return register_default (procedure, in, error);
  /* The device is done: neither its time limit nor a lost acknowledgement matter any more. */
  mi_frame_reset (self->auth.frame);
  self->auth.held_deadline_ms = -1;
  self->auth.overall_deadline_ms = -1;
  effect = mi_effects_add (effects, MI_EFFECT_PERSIST, 0);
  effect->keys = &self->keys;
  effect->key_state = MI_KEY_STATE_CURRENT;
  mi_procedure_enter (procedure, PERSIST_CURRENT);
  return TRUE;
}

static gboolean
on_send_certificate (MiProcedure *procedure, const MiInput *in, MiEffects *effects, GError **error)
{
  MiRegister *self = (MiRegister *) procedure;

  if (mi_auth_await_last (&self->auth, in, MI_MESSAGE_SERVER_CERTIFICATE, MI_OPCODE_REGISTERED,
                          MI_OPCODE_REGISTRATION_FAILED, VERDICT))
    return TRUE;
  return on_verdict (procedure, in, effects, error);
}

/* The device holds the keys: whatever it says, and whether the link stays, changes nothing. */
static gboolean
on_persist_current (MiProcedure *procedure, const MiInput *in, MiEffects *effects, GError **error)
{
  if (mi_input_is_event (in, MI_EVENT_PERSISTED))
    {
      mi_procedure_done (procedure, effects);
      return TRUE;
    }
  if (mi_input_is_event (in, MI_EVENT_PERSIST_FAILED))
    {
      g_set_error (error, MI_ERROR, MI_ERROR_STORAGE,
                   "the device confirmed the new keys, but they could not be marked as current; "
                   "the pending record holds them");
      return FALSE;
    }
  if (in->kind != MI_INPUT_EVENT || in->event->kind == MI_EVENT_LINK_LOST)
    return TRUE;
  return register_default (procedure, in, error);
}

static const MiState states[] = {
  [START] = { "start", on_start, .limit_ms = 0 },
  [EXPLORE] = { "explore", on_explore, .limit_ms = MI_AUTH_EXPLORE_LIMIT_MS },
  [INFO] = { "info", on_info, .limit_ms = 10000 },
  /* 10 s without the device's READY end it in the framing; this is for the rest of it, too. */
  [SEND_KEY] = { "send-key", on_send_key, .limit_ms = 20000 },
  [EXPECT_KEY] = { "expect-key", on_expect_key, .limit_ms = 15000 },
  [OOB_EXPECT_CONFIRMATION]
  = { "oob-expect-confirmation", on_oob_expect_confirmation, .limit_ms = 15000 },
  [OOB_SEND_CONFIRMATION]
  = { "oob-send-confirmation", on_oob_send_confirmation, .limit_ms = 15000 },
  [OOB_EXPECT_RANDOM] = { "oob-expect-random", on_oob_expect_random, .limit_ms = 15000 },
  [OOB_SEND_RANDOM] = { "oob-send-random", on_oob_send_random, .limit_ms = 15000 },
  [PERSIST_PENDING] = { "persist-pending", on_persist_pending, .limit_ms = 10000 },
  [SEND_DID] = { "send-did", on_send_did, .limit_ms = 10000 },
  [WAIT_CREDENTIAL] = { "wait-credential", on_wait_credential, .limit_ms = CREDENTIAL_LIMIT_MS },
  [PERSIST_DID] = { "persist-did", on_persist_did, .limit_ms = 10000 },
  [SEND_CREDENTIAL] = { "send-credential", on_send_credential, .limit_ms = 15000 },
  [SEND_CERTIFICATE] = { "send-certificate", on_send_certificate, .limit_ms = 15000 },
  [VERDICT] = { "verdict", on_verdict, .limit_ms = 15000 },
  [PERSIST_CURRENT] = { "persist-current", on_persist_current, .limit_ms = 10000 },
};

static void
register_clear (MiProcedure *procedure)
{
  MiRegister *self = (MiRegister *) procedure;

  g_clear_pointer (&self->key, mi_ec_key_free);
  g_clear_pointer (&self->certificate, g_free);
  mi_auth_clear (procedure);
}

static const MiProcedureClass register_class = {
  .name = "register",
  .size = sizeof (MiRegister),
  .states = states,
  .dispatch = mi_auth_dispatch,
  .deadline = mi_auth_deadline,
  .clear = register_clear,
};

MiProcedure *
mi_register_new (const MiRegisterOptions *options)
{
  MiRegister *self;

  g_return_val_if_fail (options != NULL && options->sizes != NULL && options->random != NULL, NULL);
  self = mi_auth_alloc (&register_class, START, options->sizes, options->explore);
  self->random = options->random;
  self->random_data = options->random_data;
  self->can_credential = options->can_credential;
  if (options->did != NULL)
    {
      self->has_did_override = TRUE;
      memcpy (self->did_override, options->did, MI_DID_LEN);
    }
  if (options->oob != NULL)
    {
      self->has_oob = TRUE;
      self->oob_method = options->oob_method;
      memcpy (self->oob, options->oob, OOB_LEN);
    }
  return &self->auth.parent;
}

const MiDeviceInfo *
mi_register_get_info (MiProcedure *self)
{
  g_return_val_if_fail (self != NULL && self->klass == &register_class, NULL);
  return ((MiRegister *) self)->has_info ? &((MiRegister *) self)->info : NULL;
}

const MiKeys *
mi_register_get_keys (MiProcedure *self)
{
  g_return_val_if_fail (self != NULL && self->klass == &register_class, NULL);
  return &((MiRegister *) self)->keys;
}

gboolean
mi_credential_verify (const MiCredential *credential, const guint8 root[64], const MiKeys *keys,
                      GError **error)
{
  g_autoptr (MiCertificate) certificate = NULL;
  g_autoptr (GError) reason = NULL;
  guint8 signed_data[MI_DID_LEN + MI_BIND_KEY_LEN + 4];
  guint8 public_key[64];
  const char *problem = NULL;

  g_return_val_if_fail (credential != NULL && root != NULL && keys != NULL, FALSE);
  memcpy (signed_data, credential->did, MI_DID_LEN);
  memcpy (signed_data + MI_DID_LEN, keys->bind_key, MI_BIND_KEY_LEN);
  mi_put_u32 (signed_data + MI_DID_LEN + MI_BIND_KEY_LEN, credential->utc);
  certificate
      = mi_certificate_parse (credential->certificate, credential->certificate_len, &reason);
  if (certificate == NULL)
    problem = reason->message;
  else if (!mi_certificate_verify (certificate, root))
    problem = "the certificate is not signed by the root key";
  else if (!mi_certificate_valid_at (certificate, credential->utc))
    problem = "the certificate is not valid at the credential's time";
  else if (keys->has_did && memcmp (keys->did, credential->did, MI_DID_LEN) != 0)
    problem = "it is for another DID";
  else
    {
      mi_certificate_get_public (certificate, public_key);
      if (!mi_ecdsa_verify (public_key, signed_data, sizeof signed_data, credential->signature))
        problem = "the signature does not verify";
    }
  mi_crypto_wipe (signed_data, sizeof signed_data);
  if (problem != NULL)
    g_set_error (error, MI_ERROR, MI_ERROR_CREDENTIAL_REFUSED, "credential: %s", problem);
  return problem == NULL;
}
