/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "sim-private.h"

#include <string.h>

/* protocol/gatt.md section 2 */
enum
{
  OP_REGISTERED = 0x11,
  OP_FAILED = 0x12,
  OP_GO = 0x13,
  OP_STOP = 0x14,
  OP_ALREADY_REGISTERED = 0xe1,
  OP_OOB_NEEDED = 0xe3,
};

#define KEY_LEN         64
#define CONFIRM_LEN     32
#define DID_MESSAGE_MAX (MI_DID_LEN + 4)
#define CREDENTIAL_LEN  88 /* DID 20, signature 64, UTC 4 */
#define CREDENTIAL_MAX  (CREDENTIAL_LEN + 4)
#define CERTIFICATE_MAX 512
#define OOB_COMPARE     0x10 /* method: compare numbers on both displays */

/* Offsets in the derived bytes (protocol/registration.md section 2). */
#define AT_TOKEN    0
#define AT_BIND_KEY 12
#define AT_DID_KEY  28

/* protocol/registration.md section 9, device; the first four are section 5 */
enum
{
  EXPECT_KEY,
  SEND_KEY,
  SEND_CONFIRM,
  EXPECT_CONFIRM,
  SEND_RANDOM,
  EXPECT_RANDOM,
  EXPECT_DID,
  WAIT_GO,
  EXPECT_CREDENTIAL,
  EXPECT_CERTIFICATE,
};

void
sim_register_start (SimDevice *self, guint32 opcode)
{
  SimExchange *x = &self->auth.x;
  guint16 capability = self->config.io_capability;

  /* Version 3 and later: not known, so in silence. */
  if (self->firmware.auth_version != 1 && self->firmware.auth_version != 2)
    {
      sim_auth_end (self, 0);
      return;
    }
  x->oob_method = (guint8) (opcode >> 8);
  if (self->has_token && self->config.reset_button)
    {
      sim_auth_end (self, OP_ALREADY_REGISTERED);
      return;
    }
  if (capability != 0 && (x->oob_method & capability) == 0)
    {
      sim_auth_end (self, OP_OOB_NEEDED);
      return;
    }
  x->has_oob = capability != 0;
  x->state = EXPECT_KEY;
  sim_auth_expect (self, MI_MESSAGE_PUBLIC_KEY, KEY_LEN);
}

/* Keys */

static gboolean
derive (SimDevice *self)
{
  static const char info[] = "mible-setup-info";
  SimExchange *x = &self->auth.x;

  return mi_crypto_hkdf_sha256 (x->secret, sizeof x->secret, x->oob, x->has_oob ? 16 : 0,
                                (const guint8 *) info, sizeof info - 1, x->derived,
                                sizeof x->derived, NULL);
}

/* Both displays show a number made of the keys; what is compared is what both sides then use. */
static void
choose_oob (SimDevice *self)
{
  SimExchange *x = &self->auth.x;
  guint8 keys[2 * KEY_LEN];
  guint8 digest[32] = { 0 };

  memcpy (x->oob, self->config.oob, sizeof x->oob);
  if ((x->oob_method & OOB_COMPARE) == 0)
    return;
  memcpy (keys, x->host_key, KEY_LEN);
  memcpy (keys + KEY_LEN, x->own_key, KEY_LEN);
  if (mi_crypto_sha256 (keys, sizeof keys, digest, NULL))
    memcpy (x->oob, digest, sizeof x->oob);
}

static void
on_host_key (SimDevice *self, const SimInput *input)
{
  SimExchange *x = &self->auth.x;
  g_autoptr (MiEcKey) key = NULL;

  if (input->len == KEY_LEN)
    key = mi_ec_key_new (self->random, self->random_data, NULL);
  if (key == NULL || !mi_ec_key_public (key, x->own_key, NULL)
      || !mi_ec_key_agree (key, input->data, x->secret, NULL))
    {
      sim_auth_swallow (self);
      return;
    }
  memcpy (x->host_key, input->data, KEY_LEN);
  choose_oob (self);
  x->state = SEND_KEY;
  sim_auth_send (self, MI_MESSAGE_PUBLIC_KEY, x->own_key, KEY_LEN);
}

static void
go_on_with_keys (SimDevice *self)
{
  SimExchange *x = &self->auth.x;

  if (!derive (self))
    {
      sim_auth_end (self, OP_FAILED);
      return;
    }
  if (self->firmware.auth_version == 1)
    {
      x->state = EXPECT_DID;
      sim_auth_expect (self, MI_MESSAGE_PASS_THROUGH, DID_MESSAGE_MAX);
    }
  else
    x->state = WAIT_GO;
}

/* Out of band (section 5) */

static gboolean
make_confirm (SimExchange *x, const guint8 random[MI_RANDOM_LEN], guint8 out[CONFIRM_LEN])
{
  guint8 data[2 * MI_RANDOM_LEN];

  memcpy (data, random, MI_RANDOM_LEN);
  memcpy (data + MI_RANDOM_LEN, x->oob, sizeof x->oob);
  return mi_crypto_hmac_sha256 (x->secret, sizeof x->secret, data, sizeof data, out, NULL);
}

static void
start_oob (SimDevice *self)
{
  SimExchange *x = &self->auth.x;
  guint8 confirm[CONFIRM_LEN];

  if (!self->random (x->own_random, sizeof x->own_random, self->random_data)
      || !make_confirm (x, x->own_random, confirm))
    {
      sim_auth_end (self, OP_FAILED);
      return;
    }
  x->state = SEND_CONFIRM;
  sim_auth_send (self, MI_MESSAGE_DEVICE_CONFIRMATION, confirm, sizeof confirm);
}

static void
on_host_confirm (SimDevice *self, const SimInput *input)
{
  SimExchange *x = &self->auth.x;

  if (input->len != CONFIRM_LEN)
    {
      sim_auth_end (self, OP_FAILED);
      return;
    }
  memcpy (x->host_confirm, input->data, CONFIRM_LEN);
  x->state = SEND_RANDOM;
  sim_auth_send (self, MI_MESSAGE_DEVICE_RANDOM, x->own_random, sizeof x->own_random);
}

static void
on_host_random (SimDevice *self, const SimInput *input)
{
  SimExchange *x = &self->auth.x;
  guint8 confirm[CONFIRM_LEN];

  if (input->len != MI_RANDOM_LEN || !make_confirm (x, input->data, confirm)
      || !mi_crypto_equal (confirm, x->host_confirm, CONFIRM_LEN))
    sim_auth_end (self, OP_FAILED);
  else
    go_on_with_keys (self);
}

/* Verdict */

static gboolean
open_message (SimExchange *x, guint8 *plain, gsize len)
{
  static const guint8 nonce[12]
      = { 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1b };
  static const char aad[] = "devID";

  if (x->credential_len != len + 4)
    return FALSE;
  return mi_crypto_ccm_open (x->derived + AT_DID_KEY, nonce, sizeof nonce, (const guint8 *) aad,
                             sizeof aad - 1, x->credential, x->credential_len, plain, NULL);
}

/* A device that has a DID keeps it. */
static gboolean
did_is_acceptable (SimDevice *self, const guint8 did[MI_DID_LEN])
{
  return !self->keys.has_did || memcmp (self->keys.did, did, MI_DID_LEN) == 0;
}

static void
accept_keys (SimDevice *self, const guint8 did[MI_DID_LEN])
{
  SimExchange *x = &self->auth.x;

  memcpy (self->keys.did, did, MI_DID_LEN);
  self->keys.has_did = TRUE;
  memcpy (self->keys.token, x->derived + AT_TOKEN, MI_TOKEN_LEN);
  memcpy (self->keys.bind_key, x->derived + AT_BIND_KEY, MI_BIND_KEY_LEN);
  self->keys.auth_version = (guint16) self->firmware.auth_version;
  self->has_token = self->has_bind_key = TRUE;
  self->auth.logged_in = FALSE; /* login follows, with the new keys */
  sim_advert_registered (self);
  sim_device_store_keys (self);
  sim_auth_end (self, OP_REGISTERED);
  sim_device_event (self, "{\"event\":\"registered\"}");
  sim_device_changed (self, SIM_OUTPUT_ADVERT);
}

static void
decide_version_1 (SimDevice *self)
{
  guint8 did[MI_DID_LEN];

  if (open_message (&self->auth.x, did, sizeof did) && did_is_acceptable (self, did))
    accept_keys (self, did);
  else
    sim_auth_end (self, OP_FAILED);
}

/* signature over DID || bind key || UTC (section 4) */
static gboolean
credential_is_signed (SimExchange *x, const guint8 plain[CREDENTIAL_LEN], const guint8 key[64])
{
  guint8 data[MI_DID_LEN + MI_BIND_KEY_LEN + 4];

  memcpy (data, plain, MI_DID_LEN);
  memcpy (data + MI_DID_LEN, x->derived + AT_BIND_KEY, MI_BIND_KEY_LEN);
  memcpy (data + MI_DID_LEN + MI_BIND_KEY_LEN, plain + MI_DID_LEN + 64, 4);
  return mi_ecdsa_verify (key, data, sizeof data, plain + MI_DID_LEN);
}

static gboolean
certificate_key (SimDevice *self, const SimInput *input, guint8 key[64])
{
  g_autoptr (MiCertificate) certificate = mi_certificate_parse (input->data, input->len, NULL);

  if (certificate == NULL || !mi_certificate_verify (certificate, self->config.root))
    return FALSE;
  mi_certificate_get_public (certificate, key);
  return TRUE;
}

static void
decide_version_2 (SimDevice *self, const SimInput *certificate)
{
  SimExchange *x = &self->auth.x;
  guint8 plain[CREDENTIAL_LEN];
  guint8 key[64];

  if (open_message (x, plain, sizeof plain) && certificate_key (self, certificate, key)
      && credential_is_signed (x, plain, key) && did_is_acceptable (self, plain))
    accept_keys (self, plain);
  else
    sim_auth_end (self, OP_FAILED);
}

/* Inputs */

static void
on_opcode (SimDevice *self, guint32 opcode)
{
  SimExchange *x = &self->auth.x;
  gboolean in_oob = x->state >= SEND_CONFIRM && x->state <= EXPECT_RANDOM;

  if (opcode == OP_STOP && (x->state == WAIT_GO || in_oob))
    {
      sim_auth_end (self, OP_FAILED);
      return;
    }
  if (opcode != OP_GO || x->state != WAIT_GO)
    return;
  if (self->firmware.auth_version == 1)
    {
      decide_version_1 (self);
      return;
    }
  x->state = EXPECT_CREDENTIAL;
  sim_auth_expect (self, MI_MESSAGE_PASS_THROUGH, CREDENTIAL_MAX);
}

static void
keep_message (SimExchange *x, const SimInput *input)
{
  x->credential_len = MIN (input->len, sizeof x->credential);
  memcpy (x->credential, input->data, x->credential_len);
}

static void
on_received (SimDevice *self, const SimInput *input)
{
  SimExchange *x = &self->auth.x;

  switch (x->state)
    {
    case EXPECT_KEY:
      on_host_key (self, input);
      break;
    case EXPECT_CONFIRM:
      on_host_confirm (self, input);
      break;
    case EXPECT_RANDOM:
      on_host_random (self, input);
      break;
    case EXPECT_DID:
      keep_message (x, input);
      x->state = WAIT_GO;
      break;
    case EXPECT_CREDENTIAL:
      keep_message (x, input);
      x->state = EXPECT_CERTIFICATE;
      sim_auth_expect (self, MI_MESSAGE_SERVER_CERTIFICATE, CERTIFICATE_MAX);
      break;
    case EXPECT_CERTIFICATE:
      decide_version_2 (self, input);
      break;
    default:
      break;
    }
}

static void
on_sent (SimDevice *self)
{
  SimExchange *x = &self->auth.x;

  switch (x->state)
    {
    case SEND_KEY:
      if (x->has_oob)
        start_oob (self);
      else
        go_on_with_keys (self);
      break;
    case SEND_CONFIRM:
      x->state = EXPECT_CONFIRM;
      sim_auth_expect (self, MI_MESSAGE_APP_CONFIRMATION, CONFIRM_LEN);
      break;
    case SEND_RANDOM:
      x->state = EXPECT_RANDOM;
      sim_auth_expect (self, MI_MESSAGE_APP_RANDOM, MI_RANDOM_LEN);
      break;
    default:
      break;
    }
}

void
sim_register_input (SimDevice *self, const SimInput *input)
{
  switch (input->kind)
    {
    case SIM_INPUT_OPCODE:
      on_opcode (self, input->opcode);
      break;
    case SIM_INPUT_RECEIVED:
      on_received (self, input);
      break;
    case SIM_INPUT_SENT:
      on_sent (self);
      break;
    case SIM_INPUT_FAILED:
      sim_auth_end (self, 0);
      break;
    case SIM_INPUT_EXPLORED:
    default:
      break;
    }
}
