/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "mitherm-credential.h"

#include <string.h>

#include <json-glib/json-glib.h>

#include "mi-bytes.h"
#include "mi-info.h"
#include "mitherm-error.h"
#include "mitherm-store.h"

#define VERSION 1
/* json-glib recurses without a limit; no answer opens that many brackets, nested or not. */
#define OPENED_MAX 64
/* What an agent says is shown to people, but not at any length. */
#define MESSAGE_MAX 300

/* The request */

static void
add_hex (JsonBuilder *builder, const char *name, const guint8 *data, gsize len)
{
  char *hex = mi_hex_encode (data, len);

  json_builder_set_member_name (builder, name);
  json_builder_add_string_value (builder, hex);
  mitherm_secret_free (hex);
}

static void
add_did (JsonBuilder *builder, const MiKeys *keys)
{
  g_autofree char *did = keys->has_did ? mi_did_to_text (keys->did) : NULL;

  json_builder_set_member_name (builder, "did");
  if (did != NULL)
    json_builder_add_string_value (builder, did);
  else
    json_builder_add_null_value (builder);
}

static JsonNode *
build_request (const MithermCredentialRequest *request)
{
  g_autoptr (JsonBuilder) builder = json_builder_new ();

  json_builder_begin_object (builder);
  json_builder_set_member_name (builder, "version");
  json_builder_add_int_value (builder, VERSION);
  json_builder_set_member_name (builder, "address");
  json_builder_add_string_value (builder, request->address);
  json_builder_set_member_name (builder, "model");
  json_builder_add_string_value (builder, request->model != NULL ? request->model : "");
  json_builder_set_member_name (builder, "product_id");
  json_builder_add_int_value (builder, request->product_id);
  add_did (builder, request->keys);
  add_hex (builder, "token", request->keys->token, MI_TOKEN_LEN);
  add_hex (builder, "bind_key", request->keys->bind_key, MI_BIND_KEY_LEN);
  json_builder_set_member_name (builder, "deadline_ms");
  json_builder_add_int_value (builder, request->limit_ms);
  json_builder_end_object (builder);
  return json_builder_get_root (builder);
}

char *
mitherm_credential_request_to_json (const MithermCredentialRequest *request)
{
  JsonNode *root;
  char *text;

  mitherm_secret_scope_begin ();
  root = build_request (request);
  text = json_to_string (root, FALSE);
  json_node_unref (root);
  mitherm_secret_scope_end ();
  return text;
}

/* The answer */

static gpointer
refuse (GError **error, const char *what)
{
  g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_CREDENTIAL_REFUSED,
               "The credential agent's answer is not understood: %s.", what);
  return NULL;
}

static gboolean
is_shallow (const char *text, gsize len)
{
  guint opened = 0;

  for (gsize i = 0; i < len; i++)
    opened += text[i] == '{' || text[i] == '[';
  return opened <= OPENED_MAX;
}

/* (nullable): the member if it has that type; json-glib would convert or warn otherwise. */
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

  return node != NULL ? json_node_get_string (node) : NULL;
}

/* Text of a stranger for a sentence: printable, not endless, no full stop at the end. */
static char *
clean_text (const char *text)
{
  GString *clean = g_string_new (NULL);

  for (const char *at = text; at != NULL && *at != '\0' && clean->len < MESSAGE_MAX;
       at = g_utf8_next_char (at))
    {
      gunichar c = g_utf8_get_char (at);

      g_string_append_unichar (clean, g_unichar_isprint (c) ? c : ' ');
    }
  g_strstrip (clean->str);
  clean->len = strlen (clean->str);
  if (clean->len > 0 && clean->str[clean->len - 1] == '.')
    g_string_truncate (clean, clean->len - 1);
  return g_string_free (clean, FALSE);
}

static gpointer
tell_error (JsonObject *object, GError **error)
{
  g_autofree char *name = clean_text (get_text (object, "error"));
  g_autofree char *message = clean_text (get_text (object, "message"));

  g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_CREDENTIAL_REFUSED,
               "The credential agent brought no credential (%s)%s%s.",
               *name != '\0' ? name : "no reason given", *message != '\0' ? ": " : "", message);
  return NULL;
}

static gboolean
take_certificate (MiCredential *self, const char *hex)
{
  self->certificate = hex != NULL ? mi_hex_decode_alloc (hex, &self->certificate_len) : NULL;
  return self->certificate_len > 0;
}

/* Returns: the member that is wrong, %NULL: none */
static const char *
take_members (MiCredential *self, JsonObject *object)
{
  const char *did = get_text (object, "did");
  const char *signature = get_text (object, "signature");
  JsonNode *utc = get_typed (object, "utc", G_TYPE_INT64);
  gint64 seconds = utc != NULL ? json_node_get_int (utc) : -1;

  if (did == NULL || *did == '\0' || !mi_did_from_text (did, self->did))
    return "did is not 1 to 20 characters";
  if (signature == NULL || !mi_hex_decode (signature, self->signature, sizeof self->signature))
    return "signature is not 128 hex digits";
  if (seconds < 0 || seconds > G_MAXUINT32)
    return "utc is not a time in seconds";
  self->utc = (guint32) seconds;
  if (!take_certificate (self, get_text (object, "certificate")))
    return "certificate is not hex digits";
  return NULL;
}

MiCredential *
mitherm_credential_from_json (const char *text, gsize len, GError **error)
{
  g_autoptr (JsonParser) parser = json_parser_new ();
  MiCredential *self;
  JsonNode *root;
  const char *wrong;

  if (len == 0)
    return refuse (error, "it is empty");
  if (len > MITHERM_CREDENTIAL_MAX)
    return refuse (error, "it is too long");
  if (!g_utf8_validate_len (text, len, NULL) || !is_shallow (text, len)
      || !json_parser_load_from_data (parser, text, (gssize) len, NULL))
    return refuse (error, "it is no JSON");
  root = json_parser_get_root (parser);
  if (root == NULL || !JSON_NODE_HOLDS_OBJECT (root))
    return refuse (error, "it is no JSON object");
  if (json_object_has_member (json_node_get_object (root), "error"))
    return tell_error (json_node_get_object (root), error);
  self = g_new0 (MiCredential, 1);
  wrong = take_members (self, json_node_get_object (root));
  if (wrong == NULL)
    return self;
  mitherm_credential_free (self);
  return refuse (error, wrong);
}

void
mitherm_credential_free (MiCredential *self)
{
  if (self == NULL)
    return;
  g_free ((gpointer) self->certificate);
  g_free (self);
}
