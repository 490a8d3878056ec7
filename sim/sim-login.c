/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "sim-private.h"

#include <string.h>

/* protocol/gatt.md section 2 */
enum
{
  OP_LOGGED_IN = 0x21,
  OP_REFUSED = 0x23,
  OP_NOT_REGISTERED = 0xe0,
  OP_ALREADY_LOGGED_IN = 0xe2,
};

#define CONFIRM_LEN 32
#define AT_DEV_KEY  0 /* offsets in the derived bytes (protocol/login.md section 1) */
#define AT_APP_KEY  16

/* protocol/login.md section 3 */
enum
{
  EXPECT_RANDOM,
  SEND_RANDOM,
  SEND_CONFIRM,
  EXPECT_CONFIRM,
};

void
sim_login_start (SimDevice *self)
{
  if (!self->has_token)
    sim_auth_end (self, OP_NOT_REGISTERED);
  else if (self->auth.logged_in)
    sim_auth_end (self, OP_ALREADY_LOGGED_IN);
  else
    {
      self->auth.x.state = EXPECT_RANDOM;
      sim_auth_expect (self, MI_MESSAGE_APP_RANDOM, MI_RANDOM_LEN);
    }
}

static gboolean
derive (SimDevice *self)
{
  static const char info[] = "mible-login-info";
  SimExchange *x = &self->auth.x;
  guint8 salt[2 * MI_RANDOM_LEN];

  memcpy (salt, x->host_random, MI_RANDOM_LEN);
  memcpy (salt + MI_RANDOM_LEN, x->own_random, MI_RANDOM_LEN);
  return mi_crypto_hkdf_sha256 (self->keys.token, MI_TOKEN_LEN, salt, sizeof salt,
                                (const guint8 *) info, sizeof info - 1, x->derived,
                                sizeof x->derived, NULL);
}

static gboolean
confirm (const guint8 key[16], const guint8 *first, const guint8 *second, guint8 out[CONFIRM_LEN])
{
  guint8 data[2 * MI_RANDOM_LEN];

  memcpy (data, first, MI_RANDOM_LEN);
  memcpy (data + MI_RANDOM_LEN, second, MI_RANDOM_LEN);
  return mi_crypto_hmac_sha256 (key, 16, data, sizeof data, out, NULL);
}

static void
on_host_random (SimDevice *self, const SimInput *input)
{
  SimExchange *x = &self->auth.x;

  if (input->len != MI_RANDOM_LEN)
    {
      sim_auth_end (self, OP_REFUSED);
      return;
    }
  memcpy (x->host_random, input->data, MI_RANDOM_LEN);
  if (!self->random (x->own_random, sizeof x->own_random, self->random_data) || !derive (self))
    {
      sim_auth_end (self, OP_REFUSED);
      return;
    }
  x->state = SEND_RANDOM;
  sim_auth_send (self, MI_MESSAGE_DEVICE_RANDOM, x->own_random, sizeof x->own_random);
}

static void
send_confirm (SimDevice *self)
{
  SimExchange *x = &self->auth.x;
  guint8 proof[CONFIRM_LEN];

  if (!confirm (x->derived + AT_DEV_KEY, x->own_random, x->host_random, proof))
    {
      sim_auth_end (self, OP_REFUSED);
      return;
    }
  x->state = SEND_CONFIRM;
  sim_auth_send (self, MI_MESSAGE_DEVICE_CONFIRMATION, proof, sizeof proof);
}

static void
on_host_confirm (SimDevice *self, const SimInput *input)
{
  SimExchange *x = &self->auth.x;
  guint8 proof[CONFIRM_LEN];

  if (input->len != CONFIRM_LEN
      || !confirm (x->derived + AT_APP_KEY, x->host_random, x->own_random, proof)
      || !mi_crypto_equal (proof, input->data, CONFIRM_LEN))
    {
      sim_auth_end (self, OP_REFUSED);
      return;
    }
  self->auth.logged_in = TRUE;
  sim_auth_end (self, OP_LOGGED_IN);
  sim_device_event (self, "{\"event\":\"login\"}");
}

static void
on_sent (SimDevice *self)
{
  SimExchange *x = &self->auth.x;

  if (x->state == SEND_RANDOM)
    send_confirm (self);
  else if (x->state == SEND_CONFIRM)
    {
      x->state = EXPECT_CONFIRM;
      sim_auth_expect (self, MI_MESSAGE_APP_CONFIRMATION, CONFIRM_LEN);
    }
}

void
sim_login_input (SimDevice *self, const SimInput *input)
{
  switch (input->kind)
    {
    case SIM_INPUT_RECEIVED:
      if (self->auth.x.state == EXPECT_RANDOM)
        on_host_random (self, input);
      else if (self->auth.x.state == EXPECT_CONFIRM)
        on_host_confirm (self, input);
      break;
    case SIM_INPUT_SENT:
      on_sent (self);
      break;
    case SIM_INPUT_FAILED:
      sim_auth_end (self, 0);
      break;
    case SIM_INPUT_OPCODE:
    case SIM_INPUT_EXPLORED:
    default:
      break;
    }
}
