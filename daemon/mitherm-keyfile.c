/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "mitherm-keyfile.h"

#include <string.h>

#include <json-glib/json-glib.h>

#include "mi-bytes.h"
#include "mi-crypto.h"
#include "mi-info.h"
#include "mitherm-error.h"

/* Deeper nesting is no key file, and json-glib recurses without a limit of its own. */
#define DEPTH_MAX 64

/* Export */

static void
add_hex (JsonBuilder *builder, const char *name, const guint8 *data, gsize len, gboolean has)
{
  char *hex;

  if (!has)
    return;
  hex = mi_hex_encode (data, len);
  json_builder_set_member_name (builder, name);
  json_builder_add_string_value (builder, hex);
  mitherm_secret_free (hex);
}

static void
add_text (JsonBuilder *builder, const char *name, const char *text)
{
  if (text == NULL)
    return;
  json_builder_set_member_name (builder, name);
  json_builder_add_string_value (builder, text);
}

static void
export_set (JsonBuilder *builder, const MithermKeySet *set)
{
  g_autoptr (GDateTime) seconds = g_date_time_new_from_unix_utc (set->created_us / G_USEC_PER_SEC);
  g_autoptr (GDateTime) created
      = seconds != NULL ? g_date_time_add (seconds, set->created_us % G_USEC_PER_SEC) : NULL;
  g_autofree char *text = created != NULL ? g_date_time_format_iso8601 (created) : NULL;

  json_builder_begin_object (builder);
  add_hex (builder, "token", set->keys.token, MI_TOKEN_LEN, set->has_token);
  add_hex (builder, "bind_key", set->keys.bind_key, MI_BIND_KEY_LEN, set->has_bind_key);
  add_text (builder, "origin", set->origin);
  add_text (builder, "created", text);
  add_text (builder, "state", mitherm_key_state_to_string (set->state));
  json_builder_end_object (builder);
}

static void
export_did (JsonBuilder *builder, const MithermRecord *record)
{
  for (guint i = 0; i < record->keys->len; i++)
    {
      const MithermKeySet *set = g_ptr_array_index (record->keys, i);

      if (set->keys.has_did)
        {
          g_autofree char *did = mi_did_to_text (set->keys.did);

          add_text (builder, "did", did);
          return;
        }
    }
}

typedef struct
{
  JsonBuilder *builder;
  const char *address;
} Export;

static void
export_record (const MithermRecord *record, gpointer user_data)
{
  Export *export = user_data;
  JsonBuilder *builder = export->builder;

  if (record->keys->len == 0
      || (export->address != NULL && !g_str_equal (export->address, record->address)))
    return;
  json_builder_begin_object (builder);
  add_text (builder, "address", record->address);
  add_text (builder, "model", record->facts.model);
  export_did (builder, record);
  json_builder_set_member_name (builder, "keys");
  json_builder_begin_array (builder);
  for (guint i = 0; i < record->keys->len; i++)
    export_set (builder, g_ptr_array_index (record->keys, i));
  json_builder_end_array (builder);
  json_builder_end_object (builder);
}

char *
mitherm_keyfile_export (MithermStore *store, const char *address)
{
  Export export = { NULL, address };
  g_autoptr (JsonNode) root = NULL;
  char *text;

  mitherm_secret_scope_begin ();
  export.builder = json_builder_new ();
  json_builder_begin_object (export.builder);
  json_builder_set_member_name (export.builder, "version");
  json_builder_add_int_value (export.builder, 1);
  json_builder_set_member_name (export.builder, "devices");
  json_builder_begin_array (export.builder);
  mitherm_store_foreach (store, export_record, &export);
  json_builder_end_array (export.builder);
  json_builder_end_object (export.builder);
  root = json_builder_get_root (export.builder);
  text = json_to_string (root, TRUE);
  g_object_unref (export.builder);
  g_clear_pointer (&root, json_node_unref);
  mitherm_secret_scope_end ();
  return text;
}

/* Import: every format becomes entries of text, which are judged in one place. */

typedef struct
{
  char *address;
  char *token;
  char *bind_key;
  char *did;
  char *model;
  char *state;
  char *created;
  gboolean named; /* a line "name" was among its own */
  guint line;     /* of its address, or its first one */
  gsize start;    /* where in the text it may begin */
} Entry;

typedef struct
{
  MithermStore *store;
  MiModels *models;
  MithermImportFunc changed;
  gpointer user_data;
  const char *text; /* whole, NUL-terminated */
  gsize done;       /* of the text: entries to come stand behind */
  guint imported;
  guint skipped;
  guint seen;
  GVariantBuilder problems;
  GError *error; /* of the store; the import stops */
} Import;

static void
entry_clear (Entry *entry)
{
  mitherm_secret_free (entry->token);
  mitherm_secret_free (entry->bind_key);
  g_free (entry->address);
  g_free (entry->did);
  g_free (entry->model);
  g_free (entry->state);
  g_free (entry->created);
  memset (entry, 0, sizeof *entry);
}

static void
add_problem (Import *import, guint line, const char *field, const char *reason)
{
  GVariantBuilder problem;

  g_variant_builder_init (&problem, G_VARIANT_TYPE_VARDICT);
  g_variant_builder_add (&problem, "{sv}", "line", g_variant_new_uint32 (line));
  g_variant_builder_add (&problem, "{sv}", "field", g_variant_new_string (field));
  g_variant_builder_add (&problem, "{sv}", "reason", g_variant_new_string (reason));
  g_variant_builder_add (&import->problems, "a{sv}", &problem);
}

/* Also without separators and with dashes, which some tools write. */
static gboolean
normalise_address (const char *text, char out[18])
{
  guint8 bytes[6];
  g_autofree char *plain = g_strdup (text);
  char *to = plain;

  for (const char *from = text; *from != '\0'; from++)
    {
      if (*from != ':' && *from != '-')
        *to++ = *from;
    }
  *to = '\0';
  if (!mi_hex_decode (plain, bytes, sizeof bytes))
    return FALSE;
  g_snprintf (out, 18, "%02X:%02X:%02X:%02X:%02X:%02X", bytes[0], bytes[1], bytes[2], bytes[3],
              bytes[4], bytes[5]);
  return TRUE;
}

static gboolean
is_thermometer (Import *import, const char *model)
{
  return model == NULL || *model == '\0' || mi_models_find_by_model_string (import->models, model)
         || mi_models_find (import->models, model) || strstr (model, "sensor_ht") != NULL;
}

static MithermKeyState
wanted_state (Import *import, const Entry *entry, const char *address, const MithermKeySet *set)
{
  const MithermRecord *record = mitherm_store_lookup (import->store, address);
  MithermKeyState state = MITHERM_KEY_CURRENT;

  mitherm_key_state_from_string (entry->state, &state);
  if (state != MITHERM_KEY_CURRENT)
    return state;
  for (guint i = 0; record != NULL && i < record->keys->len; i++)
    {
      const MithermKeySet *own = g_ptr_array_index (record->keys, i);
      gboolean same = own->has_token && set->has_token
                      && mi_crypto_equal (own->keys.token, set->keys.token, MI_TOKEN_LEN);

      /* Two sets claim to be current: the next login decides. */
      if (own->state == MITHERM_KEY_CURRENT && !same)
        return MITHERM_KEY_PENDING;
    }
  return MITHERM_KEY_CURRENT;
}

static gint64
created_us (const char *text)
{
  g_autoptr (GDateTime) time = text != NULL ? g_date_time_new_from_iso8601 (text, NULL) : NULL;

  return time != NULL
             ? g_date_time_to_unix (time) * G_USEC_PER_SEC + g_date_time_get_microsecond (time)
             : g_get_real_time ();
}

static gboolean
is_given (const char *text)
{
  return text != NULL && *text != '\0';
}

static guint
line_at (Import *import, gsize offset)
{
  guint line = 1;

  for (gsize i = 0; i < offset; i++)
    line += import->text[i] == '\n';
  return line;
}

/* The line in which @value of @entry stands. */
static guint
line_of (Import *import, const Entry *entry, const char *value)
{
  const char *at = is_given (value) ? strstr (import->text + entry->start, value) : NULL;

  return at != NULL ? line_at (import, (gsize) (at - import->text)) : entry->line;
}

static gboolean
is_hex_word (const char *word, gsize len)
{
  return strlen (word) == len && strspn (word, "0123456789abcdefABCDEF") == len;
}

/* Says what is wrong with a key that does not have its @len bytes; never the key itself. */
static void
add_bad_key (Import *import, const Entry *entry, const char *field, const char *value, gsize len)
{
  gsize digits = strspn (value, "0123456789abcdefABCDEF");
  gsize other = len == MI_TOKEN_LEN ? MI_BIND_KEY_LEN : MI_TOKEN_LEN;
  g_autofree char *reason = NULL;

  if (value[digits] != '\0')
    reason = g_strdup_printf ("not %" G_GSIZE_FORMAT " hex digits", 2 * len);
  else
    reason = g_strdup_printf ("%" G_GSIZE_FORMAT " hex digits instead of %" G_GSIZE_FORMAT "%s",
                              digits, 2 * len,
                              digits != 2 * other        ? ""
                              : other == MI_BIND_KEY_LEN ? ": that is the length of a bind key"
                                                         : ": that is the length of a token");
  add_problem (import, line_of (import, entry, value), field, reason);
}

static gboolean
read_set (Import *import, const Entry *entry, MithermKeySet *set)
{
  set->has_token = is_given (entry->token);
  set->has_bind_key = is_given (entry->bind_key);
  if (set->has_token && set->has_bind_key && is_hex_word (entry->token, 2 * MI_BIND_KEY_LEN)
      && is_hex_word (entry->bind_key, 2 * MI_TOKEN_LEN))
    {
      add_problem (import, line_of (import, entry, entry->token), "token",
                   "token and bind_key are swapped: a token has 24 hex digits, a bind key 32");
      return FALSE;
    }
  if (set->has_token && !mi_hex_decode (entry->token, set->keys.token, MI_TOKEN_LEN))
    {
      add_bad_key (import, entry, "token", entry->token, MI_TOKEN_LEN);
      return FALSE;
    }
  if (set->has_bind_key && !mi_hex_decode (entry->bind_key, set->keys.bind_key, MI_BIND_KEY_LEN))
    {
      add_bad_key (import, entry, "bind_key", entry->bind_key, MI_BIND_KEY_LEN);
      return FALSE;
    }
  if (is_given (entry->did))
    set->keys.has_did = mi_did_from_text (entry->did, set->keys.did);
  return TRUE;
}

static void
import_entry (Import *import, const Entry *entry)
{
  g_autoptr (MithermKeySet) set = mitherm_key_set_new ();
  char address[18];

  if (import->error != NULL || (!is_given (entry->token) && !is_given (entry->bind_key)))
    return;
  import->seen++;
  if (!is_thermometer (import, entry->model))
    {
      import->skipped++;
      return;
    }
  if (!is_given (entry->address) || !normalise_address (entry->address, address))
    {
      add_problem (import, entry->line, "address",
                   is_given (entry->address) ? "not a Bluetooth address" : "missing");
      return;
    }
  if (!read_set (import, entry, set))
    return;
  set->state = wanted_state (import, entry, address, set);
  set->origin = g_strdup ("import");
  set->created_us = created_us (entry->created);
  if (!mitherm_store_add (import->store, address, set, &import->error))
    return;
  import->imported++;
  import->changed (address, import->user_data);
}

/* JSON */

static char *
dup_member (JsonObject *object, const char *const *names)
{
  for (; *names != NULL; names++)
    {
      JsonNode *node = json_object_get_member (object, *names);

      if (node != NULL && JSON_NODE_HOLDS_VALUE (node)
          && json_node_get_value_type (node) == G_TYPE_STRING)
        return g_strstrip (json_node_dup_string (node));
    }
  return NULL;
}

static const char *const address_names[] = { "mac", "address", "mac_address", NULL };
static const char *const token_names[] = { "token", NULL };
static const char *const bind_names[]
    = { "beaconkey", "bind_key", "bindkey", "encryption_key", NULL };
static const char *const did_names[] = { "did", NULL };
static const char *const model_names[] = { "model", NULL };
static const char *const state_names[] = { "state", NULL };
static const char *const created_names[] = { "created", NULL };

static char *find_bind_key (JsonNode *node, guint depth);

static char *
find_bind_key_in (JsonObject *object, guint depth)
{
  char *found = dup_member (object, bind_names);
  g_autoptr (GList) members = json_object_get_values (object);

  for (GList *item = members; found == NULL && item != NULL; item = item->next)
    {
      /* Another device inside has its own. */
      if (JSON_NODE_HOLDS_OBJECT (item->data)
          && !json_object_has_member (json_node_get_object (item->data), "mac")
          && !json_object_has_member (json_node_get_object (item->data), "address"))
        found = find_bind_key (item->data, depth + 1);
    }
  return found;
}

/* At most two levels down: BLE_DATA, result. */
static char *
find_bind_key (JsonNode *node, guint depth)
{
  return depth <= 2 ? find_bind_key_in (json_node_get_object (node), depth) : NULL;
}

static void
read_keys (Entry *entry, JsonObject *object)
{
  entry->token = dup_member (object, token_names);
  entry->bind_key = find_bind_key_in (object, 0);
}

/* Our own export: a list of sets, newest first; the store wants the newest last. */
static void
import_sets (Import *import, Entry *entry, JsonArray *sets)
{
  for (guint i = json_array_get_length (sets); i-- > 0;)
    {
      JsonNode *node = json_array_get_element (sets, i);
      Entry one = { .line = entry->line, .start = entry->start };

      if (!JSON_NODE_HOLDS_OBJECT (node))
        continue;
      one.address = g_strdup (entry->address);
      one.did = g_strdup (entry->did);
      one.model = g_strdup (entry->model);
      one.state = dup_member (json_node_get_object (node), state_names);
      one.created = dup_member (json_node_get_object (node), created_names);
      read_keys (&one, json_node_get_object (node));
      import_entry (import, &one);
      entry_clear (&one);
    }
}

static void import_node (Import *import, JsonNode *node, guint depth);

/* The parser tells no positions: objects come in the order of the text, by their addresses. */
static void
find_entry (Import *import, Entry *entry)
{
  const char *at = strstr (import->text + import->done, entry->address);

  entry->start = import->done;
  entry->line = line_at (import, import->done);
  if (at == NULL) /* written with escapes */
    return;
  import->done = (gsize) (at - import->text) + strlen (entry->address);
  entry->line = line_at (import, (gsize) (at - import->text));
}

static void
import_object (Import *import, JsonObject *object, guint depth)
{
  g_autoptr (GList) members = json_object_get_values (object);
  JsonNode *sets = json_object_get_member (object, "keys");
  Entry entry = { 0 };

  entry.address = dup_member (object, address_names);
  if (is_given (entry.address))
    {
      find_entry (import, &entry);
      entry.did = dup_member (object, did_names);
      entry.model = dup_member (object, model_names);
      if (sets != NULL && JSON_NODE_HOLDS_ARRAY (sets))
        import_sets (import, &entry, json_node_get_array (sets));
      else
        {
          read_keys (&entry, object);
          import_entry (import, &entry);
        }
    }
  entry_clear (&entry);
  for (GList *item = members; item != NULL; item = item->next)
    import_node (import, item->data, depth + 1);
}

static void
import_node (Import *import, JsonNode *node, guint depth)
{
  if (depth > DEPTH_MAX)
    return;
  if (JSON_NODE_HOLDS_OBJECT (node))
    import_object (import, json_node_get_object (node), depth);
  else if (JSON_NODE_HOLDS_ARRAY (node))
    {
      JsonArray *array = json_node_get_array (node);

      for (guint i = 0; i < json_array_get_length (array); i++)
        import_node (import, json_array_get_element (array, i), depth + 1);
    }
}

/*
 * Whether it is made of JSON's own signs and nested no deeper than DEPTH_MAX. The parser also takes
 * comments and single quotes, behind which brackets could hide from this look.
 */
static gboolean
is_plain_json (const char *text)
{
  gboolean quoted = FALSE;
  guint depth = 0;

  for (; *text != '\0'; text++)
    {
      if (quoted)
        {
          if (*text == '\\' && text[1] != '\0')
            text++;
          else if (*text == '"')
            quoted = FALSE;
        }
      else if (*text == '"')
        quoted = TRUE;
      else if (*text == '{' || *text == '[')
        depth++;
      else if (*text == '}' || *text == ']')
        depth -= depth > 0;
      else if (!g_ascii_isalnum (*text) && strchr (":,+-. \t\r\n", *text) == NULL)
        return FALSE;
      if (depth > DEPTH_MAX)
        return FALSE;
    }
  return TRUE;
}

static gboolean
import_json (Import *import, const char *start, GError **error)
{
  g_autoptr (JsonParser) parser = json_parser_new ();
  gboolean plain = g_utf8_validate (start, -1, NULL) && is_plain_json (start);

  if (!plain || !json_parser_load_from_data (parser, start, -1, NULL))
    {
      guint line = plain ? json_parser_get_current_line (parser) : 1;

      /* The parser's own text may quote the file. */
      g_set_error (error, MITHERM_ERROR, MITHERM_ERROR_INVALID_ARGS,
                   "The key file is no sound JSON (%s line %u).", plain ? "at" : "seen from",
                   line_at (import, (gsize) (start - import->text)) + MAX (line, 1) - 1);
      return FALSE;
    }
  import_node (import, json_parser_get_root (parser), 0);
  return TRUE;
}

/* Text: blocks of "LABEL: value", YAML-like pairs, lists */

static char **
entry_field (Entry *entry, const char *label)
{
  static const struct
  {
    const char *label;
    gsize offset;
  } fields[] = {
    { "mac", G_STRUCT_OFFSET (Entry, address) },
    { "address", G_STRUCT_OFFSET (Entry, address) },
    { "mac_address", G_STRUCT_OFFSET (Entry, address) },
    { "mac address", G_STRUCT_OFFSET (Entry, address) },
    { "token", G_STRUCT_OFFSET (Entry, token) },
    { "ble key", G_STRUCT_OFFSET (Entry, bind_key) },
    { "beacon key", G_STRUCT_OFFSET (Entry, bind_key) },
    { "beaconkey", G_STRUCT_OFFSET (Entry, bind_key) },
    { "bind_key", G_STRUCT_OFFSET (Entry, bind_key) },
    { "bindkey", G_STRUCT_OFFSET (Entry, bind_key) },
    { "encryption_key", G_STRUCT_OFFSET (Entry, bind_key) },
    { "id", G_STRUCT_OFFSET (Entry, did) },
    { "did", G_STRUCT_OFFSET (Entry, did) },
    { "model", G_STRUCT_OFFSET (Entry, model) },
  };

  for (gsize i = 0; i < G_N_ELEMENTS (fields); i++)
    {
      if (g_ascii_strcasecmp (fields[i].label, label) == 0)
        return &G_STRUCT_MEMBER (char *, entry, fields[i].offset);
    }
  return NULL;
}

static void
flush_entry (Import *import, Entry *entry)
{
  import_entry (import, entry);
  entry_clear (entry);
}

/* A value as YAML has it: maybe in quotes, maybe with a comment behind. */
static char *
unquote (const char *value)
{
  const char *start = value + strspn (value, " \t");
  const char *end = NULL;
  const char *comment;

  if (*start == '"' || *start == '\'')
    end = strchr (start + 1, *start);
  if (end != NULL)
    return g_strstrip (g_strndup (start + 1, (gsize) (end - start - 1)));
  comment = strstr (start, " #");
  return g_strstrip (comment != NULL ? g_strndup (start, (gsize) (comment - start))
                                     : g_strdup (start));
}

/* Returns: whether the line is one that is known here */
static gboolean
import_pair (Import *import, Entry *entry, const char *line, guint number, gsize offset)
{
  gboolean dash = g_str_has_prefix (line, "- ");
  const char *start = dash ? line + 2 : line;
  const char *colon = strchr (start, ':');
  g_autofree char *label = NULL;
  gboolean name;
  char **field;

  if (colon == NULL)
    return FALSE;
  label = g_strstrip (g_strndup (start, (gsize) (colon - start)));
  name = g_ascii_strcasecmp (label, "name") == 0;
  field = entry_field (entry, label);
  /* A dash, a second name or a second address begins the next device. */
  if (dash || (name && entry->named) || (field != NULL && *field != NULL))
    {
      flush_entry (import, entry);
      field = entry_field (entry, label);
    }
  entry->named |= name;
  if (entry->line == 0)
    entry->start = offset;
  if (entry->line == 0 || field == &entry->address)
    entry->line = number;
  if (field != NULL)
    *field = unquote (colon + 1);
  return field != NULL || name || dash;
}

/* Returns: (nullable): what is wrong with @value, which is neither a token nor a bind key */
static char *
bad_word (const char *value)
{
  gsize digits = strspn (value, "0123456789abcdefABCDEF");

  if (is_hex_word (value, 2 * MI_TOKEN_LEN) || is_hex_word (value, 2 * MI_BIND_KEY_LEN))
    return g_strdup ("one key too many");
  if (value[digits] != '\0')
    return g_strdup ("neither 24 nor 32 hex digits");
  return g_strdup_printf ("%" G_GSIZE_FORMAT " hex digits: a token has 24, a bind key 32", digits);
}

static void
import_list_line (Import *import, char **words, guint number, gsize offset)
{
  Entry entry = { .line = number, .start = offset };
  gboolean good = TRUE;

  entry.address = unquote (words[0]);
  for (char **word = words + 1; good && *word != NULL && **word != '#'; word++)
    {
      char *value = unquote (*word);

      if (is_hex_word (value, 2 * MI_TOKEN_LEN) && entry.token == NULL)
        entry.token = g_steal_pointer (&value);
      else if (is_hex_word (value, 2 * MI_BIND_KEY_LEN) && entry.bind_key == NULL)
        entry.bind_key = g_steal_pointer (&value);
      else if (*value != '\0')
        {
          g_autofree char *reason = bad_word (value);

          good = FALSE;
          import->seen++;
          add_problem (import, number, "key", reason);
        }
      mitherm_secret_free (value);
    }
  if (good)
    import_entry (import, &entry);
  entry_clear (&entry);
}

static void
wipe_words (char **words)
{
  for (char **word = words; *word != NULL; word++)
    mi_crypto_wipe (*word, strlen (*word));
  g_strfreev (words);
}

static gboolean
has_key (char **words)
{
  for (; *words != NULL; words++)
    {
      if (is_hex_word (*words, 2 * MI_TOKEN_LEN) || is_hex_word (*words, 2 * MI_BIND_KEY_LEN))
        return TRUE;
    }
  return FALSE;
}

/* @offset: of the line in the text */
static void
import_line (Import *import, Entry *entry, char *line, guint number, gsize offset)
{
  char **words;
  char address[18];
  g_autofree char *first = NULL;

  g_strstrip (line);
  if (*line == '\0' || *line == '#')
    return;
  if (strspn (line, "-") == strlen (line)) /* the extractor's rule between two devices */
    {
      flush_entry (import, entry);
      return;
    }
  words = g_strsplit_set (line, ",; \t", -1);
  first = unquote (words[0]);
  if (normalise_address (first, address))
    import_list_line (import, words, number, offset);
  else if (!import_pair (import, entry, line, number, offset) && has_key (words))
    {
      import->seen++;
      add_problem (import, number, "address", "keys without a Bluetooth address in front");
    }
  wipe_words (words);
}

static void
import_text (Import *import)
{
  char **lines = g_strsplit (import->text, "\n", -1);
  Entry entry = { 0 };
  gsize offset = 0;

  for (guint i = 0; lines[i] != NULL; i++)
    {
      gsize len = strlen (lines[i]);

      import_line (import, &entry, lines[i], i + 1, offset);
      offset += len + 1;
    }
  flush_entry (import, &entry);
  wipe_words (lines);
}

static char *
terminated (const char *data, gsize len)
{
  char *text = g_malloc (len + 1);

  if (len > 0)
    memcpy (text, data, len);
  text[len] = '\0';
  return text;
}

gboolean
mitherm_keyfile_import (MithermStore *store, MiModels *models, const char *data, gsize len,
                        MithermImportFunc changed, gpointer user_data, MithermImport *out,
                        GError **error)
{
  Import import = { store, models, changed, user_data };
  char *text = terminated (data, len);
  const char *start = text + strspn (text, " \t\r\n\xef\xbb\xbf");
  gboolean ok = TRUE;

  mitherm_secret_scope_begin ();
  import.text = text;
  g_variant_builder_init (&import.problems, G_VARIANT_TYPE ("aa{sv}"));
  if (*start == '{' || *start == '[')
    ok = import_json (&import, start, error);
  else
    import_text (&import);
  if (ok && import.error != NULL)
    {
      g_propagate_error (error, g_steal_pointer (&import.error));
      ok = FALSE;
    }
  if (ok && import.seen == 0)
    {
      g_set_error_literal (error, MITHERM_ERROR, MITHERM_ERROR_INVALID_ARGS,
                           "The file holds no address with a token or a bind key in any format "
                           "known here.");
      ok = FALSE;
    }
  out->imported = import.imported;
  out->skipped = import.skipped;
  out->problems = g_variant_builder_end (&import.problems);
  if (!ok)
    g_variant_unref (g_variant_ref_sink (g_steal_pointer (&out->problems)));
  g_clear_error (&import.error);
  mitherm_secret_free (text);
  mitherm_secret_scope_end ();
  return ok;
}
