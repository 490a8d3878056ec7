/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "cloud-message.h"

#include "cloud-error.h"
#include "cloud-text.h"

#include <string.h>

#define MAX_OPENED    256
#define MAX_MODEL_LEN 64

/* The JSON parser recurses without a limit. What opens no more brackets than this cannot nest
   deeper, wherever they stand; no message has that many. */
static gboolean
is_shallow (const char *text, gsize len)
{
  guint n_opened = 0;

  for (gsize i = 0; i < len; i++)
    if (text[i] == '[' || text[i] == '{')
      n_opened++;
  return n_opened <= MAX_OPENED;
}

/* (transfer full) (nullable): the object that the text is. Why it is none is not told: the parser's
   own text may quote a secret. */
static JsonObject *
parse_object (const char *text, gsize len)
{
  g_autoptr (JsonParser) parser = json_parser_new ();
  JsonNode *root;

  if (len == 0 || len > CLOUD_MAX_MESSAGE || !g_utf8_validate_len (text, len, NULL)
      || !is_shallow (text, len) || !json_parser_load_from_data (parser, text, (gssize) len, NULL))
    return NULL;
  root = json_parser_get_root (parser);
  if (root == NULL || !JSON_NODE_HOLDS_OBJECT (root))
    return NULL;
  return json_object_ref (json_node_get_object (root));
}

/* (nullable): the member if it is of that type; json-glib converts or warns otherwise. */
static JsonNode *
get_typed (JsonObject *object, const char *name, GType type)
{
  JsonNode *node = json_object_get_member (object, name);

  if (node == NULL || !JSON_NODE_HOLDS_VALUE (node) || json_node_get_value_type (node) != type)
    return NULL;
  return node;
}

static const char *
get_text (JsonObject *object, const char *name)
{
  JsonNode *node = get_typed (object, name, G_TYPE_STRING);

  return node == NULL ? NULL : json_node_get_string (node);
}

static gboolean
get_number (JsonObject *object, const char *name, gint64 *value)
{
  JsonNode *node = get_typed (object, name, G_TYPE_INT64);

  if (node != NULL)
    *value = json_node_get_int (node);
  return node != NULL;
}

static gboolean
is_plain_text (const char *text, gsize max_len)
{
  gsize len = strlen (text);

  for (gsize i = 0; i < len; i++)
    if (!g_ascii_isgraph (text[i]))
      return FALSE;
  return len > 0 && len <= max_len;
}

static gboolean
bad_request (GError **error, const char *what)
{
  g_set_error (error, CLOUD_ERROR, CLOUD_ERROR_BAD_REQUEST, "request: %s", what);
  return FALSE;
}

/* ---- the request --------------------------------------------------------------------------- */

static char *
take_hex (JsonObject *object, const char *name, gsize len)
{
  const char *text = get_text (object, name);
  g_autofree guint8 *bytes = text == NULL ? NULL : cloud_hex_decode (text, len);

  if (bytes == NULL)
    return NULL;
  explicit_bzero (bytes, len);
  return g_ascii_strdown (text, -1);
}

/* "A4:C1:38:00:00:01" */
static char *
take_address (JsonObject *object)
{
  const char *text = get_text (object, "address");

  if (text == NULL || strlen (text) != 17)
    return NULL;
  for (int i = 0; i < 17; i++)
    if (i % 3 == 2 ? text[i] != ':' : !g_ascii_isxdigit (text[i]))
      return NULL;
  return g_ascii_strup (text, -1);
}

static gboolean
take_did (CloudRequest *self, JsonObject *object, GError **error)
{
  const char *text = get_text (object, "did");

  if (text == NULL && json_object_has_member (object, "did")
      && !json_object_get_null_member (object, "did"))
    return bad_request (error, "did is neither text nor null");
  /* Thermometers without one have it absent, null or empty, as their host likes. */
  if (text == NULL || *text == '\0')
    return TRUE;
  if (!is_plain_text (text, CLOUD_MAX_DID_LEN))
    return bad_request (error, "did is not 1 to 20 printable characters");
  self->did = g_strdup (text);
  return TRUE;
}

static gboolean
take_request (CloudRequest *self, JsonObject *object, GError **error)
{
  const char *model = get_text (object, "model");
  gint64 version;

  if (!get_number (object, "version", &version) || version != 1)
    return bad_request (error, "version is not 1");
  if ((self->address = take_address (object)) == NULL)
    return bad_request (error, "address is no Bluetooth address");
  if (model == NULL || !is_plain_text (model, MAX_MODEL_LEN))
    return bad_request (error, "model is missing");
  self->model = g_strdup (model);
  if ((self->token = take_hex (object, "token", CLOUD_TOKEN_LEN)) == NULL)
    return bad_request (error, "token is not 24 hex digits");
  if ((self->bind_key = take_hex (object, "bind_key", CLOUD_BIND_KEY_LEN)) == NULL)
    return bad_request (error, "bind_key is not 32 hex digits");
  self->timeout_ms = -1;
  if (json_object_has_member (object, "deadline_ms")
      && (!get_number (object, "deadline_ms", &self->timeout_ms) || self->timeout_ms < 0))
    return bad_request (error, "deadline_ms is no number of milliseconds");
  return take_did (self, object, error);
}

CloudRequest *
cloud_request_parse (const char *text, gsize len, GError **error)
{
  g_autoptr (JsonObject) object = parse_object (text, len);
  g_autoptr (CloudRequest) self = NULL;

  if (object == NULL)
    {
      bad_request (error, "no JSON object");
      return NULL;
    }
  self = g_new0 (CloudRequest, 1);
  return take_request (self, object, error) ? g_steal_pointer (&self) : NULL;
}

void
cloud_request_free (CloudRequest *self)
{
  g_free (self->address);
  g_free (self->model);
  g_free (self->did);
  cloud_secret_free (self->token);
  cloud_secret_free (self->bind_key);
  g_free (self);
}

/* ---- to the service ------------------------------------------------------------------------ */

static char *
builder_to_text (JsonBuilder *builder)
{
  g_autoptr (JsonNode) root = json_builder_get_root (builder);

  return json_to_string (root, FALSE);
}

static void
add_text (JsonBuilder *builder, const char *name, const char *value)
{
  json_builder_set_member_name (builder, name);
  json_builder_add_string_value (builder, value);
}

static void
add_prop (JsonBuilder *builder, const char *key, const char *value)
{
  json_builder_begin_object (builder);
  add_text (builder, "type", "prop");
  add_text (builder, "key", key);
  add_text (builder, "value", value);
  json_builder_end_object (builder);
}

char *
cloud_request_apply_json (const CloudRequest *self)
{
  g_autoptr (JsonBuilder) builder = json_builder_new ();

  json_builder_begin_object (builder);
  add_text (builder, "mac", self->address);
  add_text (builder, "model", self->model);
  add_text (builder, "token", self->token);
  if (self->did != NULL)
    add_text (builder, "did", self->did);
  json_builder_end_object (builder);
  return builder_to_text (builder);
}

char *
cloud_request_bind_json (const CloudRequest *self, const char *did)
{
  g_autoptr (JsonBuilder) builder = json_builder_new ();

  json_builder_begin_object (builder);
  add_text (builder, "did", did);
  add_text (builder, "token", self->token);
  add_text (builder, "beacon_key", self->bind_key);
  json_builder_set_member_name (builder, "props");
  json_builder_begin_array (builder);
  add_prop (builder, "bind_key", self->bind_key);
  add_prop (builder, "smac", self->address);
  json_builder_end_array (builder);
  json_builder_end_object (builder);
  return builder_to_text (builder);
}

/* ---- from the service ---------------------------------------------------------------------- */

static gboolean
malformed (GError **error, const char *what)
{
  g_set_error (error, CLOUD_ERROR, CLOUD_ERROR_MALFORMED, "answer of the service: %s", what);
  return FALSE;
}

/* The codes differ from host to host, "auth err", "SERVICETOKEN_EXPIRED" and "serviceToken expired"
   have been seen. */
static CloudError
judge_message (const char *message)
{
  g_autofree char *lower = g_utf8_strdown (message, -1);

  if (strstr (lower, "auth err") != NULL || strstr (lower, "expired") != NULL)
    return CLOUD_ERROR_EXPIRED_SESSION;
  if (strstr (lower, "region") != NULL)
    return CLOUD_ERROR_WRONG_REGION;
  return CLOUD_ERROR_REFUSED;
}

static void
set_refusal (GError **error, const char *code, const char *message)
{
  g_autofree char *shown = cloud_text_for_people (message == NULL ? "no message" : message);
  CloudError kind = judge_message (shown);

  g_set_error (error, CLOUD_ERROR, kind, "the service refused: %s (code %s)%s", shown, code,
               kind == CLOUD_ERROR_EXPIRED_SESSION ? "; sign in again and renew the session file"
                                                   : "");
}

JsonObject *
cloud_answer_parse (const char *text, gsize len, GError **error)
{
  g_autoptr (JsonObject) answer = parse_object (text, len);
  JsonNode *result;
  const char *message;
  gint64 code;

  if (answer == NULL || !get_number (answer, "code", &code))
    {
      malformed (error, answer == NULL ? "no JSON object" : "no code");
      return NULL;
    }
  message = get_text (answer, "message");
  if (code != 0)
    {
      g_autofree char *shown = g_strdup_printf ("%" G_GINT64_FORMAT, code);

      set_refusal (error, shown, message);
      return NULL;
    }
  result = json_object_get_member (answer, "result");
  if (result != NULL && JSON_NODE_HOLDS_OBJECT (result))
    return json_object_ref (json_node_get_object (result));
  /* Some hosts tell an expired session with code 0. */
  if (message != NULL && judge_message (message) != CLOUD_ERROR_REFUSED)
    set_refusal (error, "0", message);
  else
    malformed (error, "no result");
  return NULL;
}

char *
cloud_answer_take_did (JsonObject *result, const char *wanted, GError **error)
{
  const char *did = get_text (result, "did");

  if (did == NULL || !is_plain_text (did, CLOUD_MAX_DID_LEN))
    {
      malformed (error, "no did of 1 to 20 printable characters");
      return NULL;
    }
  if (wanted != NULL && strcmp (did, wanted) != 0)
    {
      g_set_error (error, CLOUD_ERROR, CLOUD_ERROR_REFUSED,
                   "the service gives DID %s, the thermometer holds %s and takes no other", did,
                   wanted);
      return NULL;
    }
  return g_strdup (did);
}

/* Whether the outermost DER element, a SEQUENCE, is exactly as long as what was received. The
   certificate itself is for the daemon to judge. */
static gboolean
is_whole_der (const guint8 *der, gsize len)
{
  gsize n_octets, body = 0;

  if (len < 2 || der[0] != 0x30)
    return FALSE;
  if (der[1] < 0x80)
    return len == 2u + der[1];
  n_octets = der[1] & 0x7f;
  if (n_octets == 0 || n_octets > 2 || len < 2 + n_octets)
    return FALSE;
  for (gsize i = 0; i < n_octets; i++)
    body = body << 8 | der[2 + i];
  return len == 2 + n_octets + body;
}

static gboolean
take_signature (CloudCredential *self, JsonObject *result, GError **error)
{
  const char *text = get_text (result, "cloud_sign");
  gsize len = 0;
  g_autofree guint8 *bytes = text == NULL ? NULL : cloud_base64_decode (text, &len);

  if (bytes == NULL)
    return malformed (error, "cloud_sign is no base64");
  if (len != sizeof self->signature)
    return malformed (error, "cloud_sign has not 64 bytes");
  memcpy (self->signature, bytes, len);
  return TRUE;
}

static gboolean
take_certificate (CloudCredential *self, JsonObject *result, GError **error)
{
  const char *text = get_text (result, "cloud_cert");
  gsize len = 0;
  g_autofree guint8 *bytes = text == NULL ? NULL : cloud_base64_decode (text, &len);

  if (bytes == NULL)
    return malformed (error, "cloud_cert is no base64");
  if (len > CLOUD_MAX_CERTIFICATE_LEN)
    return malformed (error, "cloud_cert has more than 512 bytes");
  if (!is_whole_der (bytes, len))
    return malformed (error, "cloud_cert is no whole DER certificate");
  self->certificate = g_bytes_new_take (g_steal_pointer (&bytes), len);
  return TRUE;
}

CloudCredential *
cloud_answer_take_credential (JsonObject *result, const char *did, GError **error)
{
  g_autoptr (CloudCredential) self = g_new0 (CloudCredential, 1);
  JsonNode *success = get_typed (result, "success", G_TYPE_BOOLEAN);
  gint64 utc;

  if (success == NULL)
    {
      malformed (error, "no success");
      return NULL;
    }
  if (!json_node_get_boolean (success))
    {
      g_set_error (error, CLOUD_ERROR, CLOUD_ERROR_REFUSED,
                   "the service did not bind the thermometer");
      return NULL;
    }
  if (!get_number (result, "utc", &utc) || utc <= 0 || utc > G_MAXUINT32)
    {
      malformed (error, "utc is no time");
      return NULL;
    }
  self->utc = (guint32) utc;
  self->did = g_strdup (did);
  if (!take_signature (self, result, error) || !take_certificate (self, result, error))
    return NULL;
  return g_steal_pointer (&self);
}

void
cloud_credential_free (CloudCredential *self)
{
  g_free (self->did);
  g_clear_pointer (&self->certificate, g_bytes_unref);
  g_free (self);
}

/* ---- the answer ---------------------------------------------------------------------------- */

char *
cloud_credential_to_json (const CloudCredential *self)
{
  g_autoptr (JsonBuilder) builder = json_builder_new ();
  gsize len;
  const guint8 *der = g_bytes_get_data (self->certificate, &len);
  g_autofree char *certificate = cloud_hex_encode (der, len);
  g_autofree char *signature = cloud_hex_encode (self->signature, sizeof self->signature);

  json_builder_begin_object (builder);
  add_text (builder, "did", self->did);
  add_text (builder, "signature", signature);
  json_builder_set_member_name (builder, "utc");
  json_builder_add_int_value (builder, self->utc);
  add_text (builder, "certificate", certificate);
  json_builder_end_object (builder);
  return builder_to_text (builder);
}

char *
cloud_error_to_json (const GError *error)
{
  g_autoptr (JsonBuilder) builder = json_builder_new ();

  json_builder_begin_object (builder);
  add_text (builder, "error", cloud_error_name (error));
  add_text (builder, "message", error->message);
  json_builder_end_object (builder);
  return builder_to_text (builder);
}
