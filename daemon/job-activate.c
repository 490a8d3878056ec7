/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include <string.h>

#include "mi-crypto.h"
#include "mi-register.h"
#include "mitherm-job-private.h"
#include "mitherm-log.h"

#define DEFAULT_LIMIT_S 180

/* Keys written ahead */

typedef struct
{
  MiRunner *runner;
  gboolean durable;
} Answer;

static gboolean
on_answer (gpointer user_data)
{
  Answer *answer = user_data;

  mi_runner_persisted (answer->runner, answer->durable);
  g_object_unref (answer->runner);
  g_free (answer);
  return G_SOURCE_REMOVE;
}

static gboolean
store_keys (MithermJob *self, const MiKeys *keys, MiKeyState state, GError **error)
{
  MithermStore *store = mitherm_manager_get_store (self->manager);
  const char *address = mitherm_device_get_address (self->device);
  g_autoptr (MithermKeySet) set = mitherm_key_set_new ();
  int index;

  set->keys = *keys;
  set->has_token = set->has_bind_key = TRUE;
  set->state = MITHERM_KEY_PENDING;
  set->origin = g_strdup ("activate");
  set->created_us = g_get_real_time ();
  if (!mitherm_store_add (store, address, set, error))
    return FALSE;
  if (state == MI_KEY_STATE_PENDING)
    return TRUE;
  index = mitherm_record_find_token (mitherm_store_lookup (store, address), keys->token);
  return mitherm_store_promote (store, address, (guint) index, error);
}

void
mitherm_job_persist (MiRunner *runner, const MiKeys *keys, MiKeyState state, gpointer job)
{
  MithermJob *self = job;
  Answer *answer = g_new0 (Answer, 1);

  g_clear_error (&self->storage_error);
  answer->runner = g_object_ref (runner);
  answer->durable = store_keys (self, keys, state, &self->storage_error);
  if (!answer->durable)
    mitherm_log_device (G_LOG_LEVEL_WARNING, mitherm_device_get_address (self->device), "%s",
                        self->storage_error->message);
  else
    {
      self->pending_written = state == MI_KEY_STATE_PENDING;
      mitherm_device_keys_changed (self->device);
    }
  g_idle_add (on_answer, answer);
}

/* The credential of version 2, from an agent */

typedef struct
{
  MithermJob *job;
  MiRunner *runner;
  GCancellable *cancellable;
} Ask;

static void
ask_free (Ask *ask)
{
  g_object_unref (ask->job);
  g_object_unref (ask->runner);
  g_object_unref (ask->cancellable);
  g_free (ask);
}

static void
end_ask (MithermJob *self)
{
  if (self->credential_cancellable != NULL)
    g_cancellable_cancel (self->credential_cancellable);
  g_clear_object (&self->credential_cancellable);
  mi_keys_clear (&self->credential_keys);
}

/* Takes @error. */
static void
no_credential (MithermJob *self, MiRunner *runner, GError *error)
{
  mitherm_log_device (G_LOG_LEVEL_MESSAGE, mitherm_device_get_address (self->device), "%s",
                      error->message);
  g_clear_error (&self->credential_error);
  self->credential_error = error;
  mi_runner_credential (runner, NULL);
}

static void
on_credential (GObject *source, GAsyncResult *result, gpointer user_data)
{
  Ask *ask = user_data;
  MithermJob *self = ask->job;
  GError *error = NULL;
  MiCredential *credential = mitherm_agents_request_finish (result, &error);

  if (self->credential_cancellable != ask->cancellable) /* nobody waits for it any more */
    g_clear_error (&error);
  else if (credential == NULL
           || !mitherm_manager_verify_credential (self->manager, credential, &self->credential_keys,
                                                  &error))
    no_credential (self, ask->runner, error);
  else
    {
      mitherm_job_set_state (self, "registering");
      mi_runner_credential (ask->runner, credential);
    }
  if (self->credential_cancellable == ask->cancellable)
    end_ask (self);
  mitherm_credential_free (credential);
  ask_free (ask);
}

static void
on_job_cancelled (GCancellable *job, GCancellable *ask)
{
  g_cancellable_cancel (ask);
}

/* What the vendor's server calls it; the vendor's own app sends that. */
static const char *
model_name (MithermDevice *device)
{
  const MiModel *model = mitherm_device_get_model (device);
  const char *name = model != NULL ? mi_model_get_model_string (model) : NULL;

  return name != NULL ? name : mitherm_device_get_facts (device)->model;
}

void
mitherm_job_need_credential (MiRunner *runner, const MiKeys *keys, guint limit_ms, gpointer job)
{
  MithermJob *self = job;
  MithermAgents *agents = mitherm_manager_get_agents (self->manager);
  MithermCredentialRequest request = {
    .address = mitherm_device_get_address (self->device),
    .model = model_name (self->device),
    .product_id = mitherm_device_get_facts (self->device)->product_id,
    .keys = keys,
    .limit_ms = limit_ms,
  };
  Ask *ask;

  end_ask (self);
  if (agents == NULL || self->phase == PHASE_OVER)
    {
      mi_runner_credential (runner, NULL);
      return;
    }
  mitherm_job_set_state (self, "waiting-credential");
  self->credential_keys = *keys;
  self->credential_cancellable = g_cancellable_new ();
  g_cancellable_connect (self->cancellable, G_CALLBACK (on_job_cancelled),
                         g_object_ref (self->credential_cancellable), g_object_unref);
  ask = g_new0 (Ask, 1);
  ask->job = g_object_ref (self);
  ask->runner = g_object_ref (runner);
  ask->cancellable = g_object_ref (self->credential_cancellable);
  mitherm_agents_request_async (agents, self->caller, mitherm_device_get_path (self->device),
                                &request, self->credential_cancellable, on_credential, ask);
}

/* Registration on the connection there is */

/* (transfer full): what @error means to people where more is known than the procedure knows. */
static GError *
register_error (MithermJob *self, const GError *error, gboolean asking)
{
  const MiDeviceInfo *info = mi_register_get_info (self->procedure);

  if (self->storage_error != NULL && g_error_matches (error, MI_ERROR, MI_ERROR_STORAGE))
    return g_error_copy (self->storage_error);
  if (asking && g_error_matches (error, MI_ERROR, MI_ERROR_TIMEOUT))
    self->credential_error = g_error_new_literal (
        MITHERM_ERROR, MITHERM_ERROR_TIMEOUT,
        "The credential agent did not answer within the time that the thermometer waits.");
  else if (info != NULL && info->auth_version == 2
           && g_error_matches (error, MI_ERROR, MI_ERROR_REGISTRATION_REFUSED))
    self->credential_error
        = g_error_new (MITHERM_ERROR, MITHERM_ERROR_CREDENTIAL_REFUSED,
                       "The thermometer refused the credential: %s.", error->message);
  if (self->credential_error == NULL)
    return g_error_copy (error);
  /* Without an accepted credential version 2 takes no keys (protocol/registration.md section 4). */
  self->pending_written = FALSE;
  return g_error_copy (self->credential_error);
}

static void
on_registered (MithermJob *self, const GError *error)
{
  MithermJobStep next = self->register_next;
  gboolean asking = self->credential_cancellable != NULL;

  end_ask (self);
  mitherm_job_take_info (self, mi_register_get_info (self->procedure));
  if (error != NULL)
    {
      g_autoptr (GError) told = register_error (self, error, asking);

      mitherm_job_continue (self, next, told);
      return;
    }
  self->registered = TRUE;
  mitherm_device_set_bound (self->device, MITHERM_BOUND_YES);
  mitherm_device_keys_changed (self->device);
  mitherm_job_continue (self, next, NULL);
}

void
mitherm_job_register (MithermJob *self, MithermJobStep next)
{
  MithermAgents *agents = mitherm_manager_get_agents (self->manager);
  MiRegisterOptions options = {
    .sizes = mi_runner_get_sizes (self->runner),
    .random = mi_crypto_random,
    .can_credential = agents != NULL && mitherm_agents_count (agents) > 0,
  };

  mitherm_job_set_state (self, "registering");
  g_clear_error (&self->credential_error);
  self->register_next = next;
  mitherm_job_run (self, mi_register_new (&options), on_registered);
}

/* The job "activate" */

/* A registration that the radio spoilt is repeated once. */
#define ATTEMPTS_MAX 2

typedef struct
{
  guint attempts;
  GError *cause; /* what spoilt the last attempt */
} Activate;

static void activate_start (MithermJob *self, const GError *error);

static void
activate_free (gpointer data)
{
  Activate *activate = data;

  g_clear_error (&activate->cause);
  g_free (activate);
}

static void
on_confirmed (MithermJob *self, const GError *error)
{
  if (error != NULL)
    {
      mitherm_job_fail (self, error);
      return;
    }
  mitherm_job_result_string (self, "keys", "current");
  mitherm_job_done (self);
}

/* The thermometer did not take the new keys: it holds none, or its old ones. */
static void
not_taken (MithermJob *self)
{
  Activate *activate = self->data;

  self->pending_written = FALSE;
  if (activate->attempts < ATTEMPTS_MAX)
    mitherm_job_disconnect (self, activate_start);
  else
    mitherm_job_fail (self, activate->cause);
}

static void
on_resolved (MithermJob *self, const GError *error)
{
  const char *which = NULL;

  if (g_error_matches (error, MI_ERROR, MI_ERROR_NOT_BOUND))
    {
      not_taken (self);
      return;
    }
  if (error != NULL)
    {
      mitherm_job_fail (self, error);
      return;
    }
  g_variant_dict_lookup (&self->result, "keys", "&s", &which);
  if (g_strcmp0 (which, "pending") == 0)
    on_confirmed (self, NULL);
  else
    not_taken (self);
}

static void
resolve_connected (MithermJob *self, const GError *error)
{
  if (error != NULL)
    mitherm_job_fail (self, error);
  else
    mitherm_job_login (self, on_resolved);
}

static void
resolve (MithermJob *self, const GError *error)
{
  mitherm_job_connect (self, resolve_connected);
}

static gboolean
is_spoilt (const GError *error)
{
  return g_error_matches (error, MI_ERROR, MI_ERROR_LINK_LOST)
         || g_error_matches (error, MI_ERROR, MI_ERROR_TIMEOUT)
         || g_error_matches (error, MI_ERROR, MI_ERROR_TRANSFER);
}

static void
activate_registered (MithermJob *self, const GError *error)
{
  Activate *activate = self->data;

  if (error == NULL)
    {
      mitherm_job_confirm (self, on_confirmed);
      return;
    }
  if (!is_spoilt (error) || (!self->pending_written && activate->attempts >= ATTEMPTS_MAX))
    {
      mitherm_job_fail (self, error);
      return;
    }
  mitherm_job_note (self, "Attempt %u was cut short: %s.", activate->attempts, error->message);
  g_clear_error (&activate->cause);
  activate->cause = g_error_copy (error);
  /* If its last word was lost, a login tells which keys it holds. */
  mitherm_job_disconnect (self, self->pending_written ? resolve : activate_start);
}

static void
activate_connected (MithermJob *self, const GError *error)
{
  if (error != NULL)
    mitherm_job_fail (self, error);
  else if (mi_link_get_flags (self->link, MI_CHANNEL_AUTH) == 0
           || mi_link_get_flags (self->link, MI_CHANNEL_CONTROL) == 0)
    mitherm_job_fail_new (self, MITHERM_ERROR_UNSUPPORTED,
                          "The running firmware has no Mi service, so that there is nothing to "
                          "activate.");
  else
    mitherm_job_register (self, activate_registered);
}

static void
activate_start (MithermJob *self, const GError *error)
{
  ((Activate *) self->data)->attempts++;
  mitherm_job_connect (self, activate_connected);
}

static const MithermJobKind activate_kind = {
  .name = "activate",
  .action = "activate",
  .start = activate_start,
  .free_data = activate_free,
};

/*
 * Keys of version 2 that were never confirmed: the thermometer most likely took none, and another
 * attempt only adds to them (protocol/registration.md section 7).
 */
static gboolean
is_only_attempted (const MithermRecord *record)
{
  for (guint i = 0; record != NULL && i < record->keys->len; i++)
    {
      const MithermKeySet *set = g_ptr_array_index (record->keys, i);

      if (set->state == MITHERM_KEY_CURRENT
          || (set->state == MITHERM_KEY_PENDING && set->keys.auth_version != 2))
        return FALSE;
    }
  return TRUE;
}

static gboolean
check_unbound (MithermDevice *device, GError **error)
{
  const MithermRecord *record = mitherm_device_get_record (device);
  const char *address = mitherm_device_get_address (device);

  if (record != NULL && record->broken != NULL && record->keys->len == 0)
    {
      g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_STORAGE,
                   "The key file of %s could not be read and was put aside as %s. The thermometer "
                   "is as before. Repair that file, or activate with force to make new keys.",
                   address, record->broken);
      return FALSE;
    }
  if (is_only_attempted (record) && mitherm_device_get_facts (device)->bound != MITHERM_BOUND_YES)
    return TRUE;
  if (mitherm_device_get_facts (device)->bound == MITHERM_BOUND_NO)
    g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_ALREADY_BOUND,
                 "Keys of %s are stored here, though it said that it holds none. It is as before. "
                 "Activate with force; the stored keys are kept as history.",
                 address);
  else
    g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_ALREADY_BOUND,
                 "%s is activated already%s. It is as before. Log in instead, or activate with "
                 "force to replace its keys.",
                 address, mitherm_device_has_keys (device) ? ", and its keys are stored here" : "");
  return FALSE;
}

MithermJob *
mitherm_job_activate_new (MithermDevice *device, guint timeout_s, gboolean force, GError **error)
{
  MithermJob *self;

  if (!mitherm_job_check_free (device, error) || (!force && !check_unbound (device, error)))
    return NULL;
  if (timeout_s > 24 * 60 * 60)
    {
      g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_INVALID_ARGS,
                   "Option \"timeout\" is %u s, at most a day is taken.", timeout_s);
      return NULL;
    }
  self = mitherm_job_new (device, &activate_kind, g_new0 (Activate, 1));
  mitherm_job_set_limit (self, timeout_s != 0 ? timeout_s : DEFAULT_LIMIT_S);
  mitherm_job_submit (self);
  return self;
}
