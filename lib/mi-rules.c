/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "mi-rules.h"

#include "mi-data-private.h"

#include <string.h>

#define RULE_GROUP "rule "

/* A rule and the conditions under which it holds; an absent condition always holds. */
typedef struct
{
  MiRule rule;
  char **models;
  char **hardware;
  char *from;
  char *to;
  char *size; /* ">131072" */
} Entry;

struct _MiRules
{
  GPtrArray *entries; /* Entry */
};

static void
entry_free (gpointer data)
{
  Entry *entry = data;

  g_free (entry->rule.name);
  g_free (entry->rule.argument);
  g_free (entry->rule.text);
  g_free (entry->rule.source);
  g_strfreev (entry->models);
  g_strfreev (entry->hardware);
  g_free (entry->from);
  g_free (entry->to);
  g_free (entry->size);
  g_free (entry);
}

G_DEFINE_AUTOPTR_CLEANUP_FUNC (Entry, entry_free)

/* Ranges: "stock", "custom,<5.9", ">=2.1.1,<3; custom". */

typedef enum
{
  TERM_BAD,
  TERM_FALSE,
  TERM_TRUE,
} Term;

static Term
term_of (gboolean holds)
{
  return holds ? TERM_TRUE : TERM_FALSE;
}

static gboolean
is_custom_kind (MiImageKind kind)
{
  return kind == MI_IMAGE_CUSTOM_PVVX || kind == MI_IMAGE_CUSTOM_ATC1441;
}

/* Returns: %TERM_BAD if @term names no family */
static Term
match_family (const char *term, MiImageKind kind)
{
  static const MiImageKind kinds[]
      = { MI_IMAGE_STOCK, MI_IMAGE_CUSTOM_PVVX, MI_IMAGE_CUSTOM_ATC1441, MI_IMAGE_TUYA };
  guint i;

  if (g_str_equal (term, "custom"))
    return term_of (is_custom_kind (kind));
  for (i = 0; i < G_N_ELEMENTS (kinds); i++)
    {
      if (g_str_equal (term, mi_image_kind_to_string (kinds[i])))
        return term_of (kind == kinds[i]);
    }
  return TERM_BAD;
}

static gboolean
order_holds (const char *comparison, gsize len, int order)
{
  if (order == 0)
    return len == 0 || comparison[len - 1] == '=';
  return len > 0 && comparison[0] == (order < 0 ? '<' : '>');
}

/* ">=2.1.1", "<3", "=2.1.1_0159", "2.1.1" */
static Term
match_version (const char *term, const char *version)
{
  static const char *const comparisons[] = { "", "=", "<", "<=", ">", ">=", NULL };
  gsize len = strspn (term, "<>=");
  g_autofree char *comparison = g_strndup (term, len);
  int order;

  if (!g_strv_contains (comparisons, comparison) || !mi_version_compare (term + len, "0", &order))
    return TERM_BAD;
  /* A version that is not known lies in no range. */
  return term_of (mi_version_compare (version, term + len, &order)
                  && order_holds (comparison, len, order));
}

/* Terms joined by commas, all of which must hold. */
static Term
match_clause (const char *clause, MiImageKind kind, const char *version)
{
  g_auto (GStrv) terms = g_strsplit (clause, ",", -1);
  Term all = TERM_TRUE;
  gboolean family_named = FALSE;
  guint i;

  if (terms[0] == NULL)
    return TERM_BAD;
  for (i = 0; terms[i] != NULL; i++)
    {
      Term term = match_family (g_strstrip (terms[i]), kind);

      if (term != TERM_BAD)
        family_named = TRUE;
      else
        term = match_version (terms[i], version);
      if (term == TERM_BAD)
        return TERM_BAD;
      all = MIN (all, term);
    }
  /* Numbers alone speak of stock firmware: custom 5.8 is not "newer than 2.1.1". */
  if (!family_named && kind != MI_IMAGE_STOCK)
    return TERM_FALSE;
  return all;
}

/* Clauses joined by semicolons, one of which must hold. */
static Term
match_range (const char *range, MiImageKind kind, const char *version)
{
  g_auto (GStrv) clauses = NULL;
  Term any = TERM_FALSE;
  guint i;

  if (range == NULL)
    return TERM_TRUE;
  clauses = g_strsplit (range, ";", -1);
  for (i = 0; clauses[i] != NULL; i++)
    {
      Term clause;

      if (g_strstrip (clauses[i])[0] == '\0')
        continue;
      clause = match_clause (clauses[i], kind, version);
      if (clause == TERM_BAD)
        return TERM_BAD;
      any = MAX (any, clause);
    }
  return any;
}

static Term
match_size (const char *condition, gsize size)
{
  guint64 number;

  if (condition == NULL)
    return TERM_TRUE;
  if ((condition[0] != '<' && condition[0] != '>')
      || !mi_data_parse_number (condition + 1, G_MAXUINT32, &number))
    return TERM_BAD;
  return term_of (condition[0] == '<' ? size < number : size > number);
}

/* An unknown value is in no list; no list holds everything. */
static gboolean
match_list (char **patterns, const char *value)
{
  guint i;

  if (patterns[0] == NULL)
    return TRUE;
  for (i = 0; value != NULL && patterns[i] != NULL; i++)
    {
      if (g_pattern_match_simple (patterns[i], value))
        return TRUE;
    }
  return FALSE;
}

/* Reading. */

static gboolean
is_risk (const char *name)
{
  static const char *const risks[]
      = { "wrong-hardware", "unsigned", "battery-low", "unknown-version", "downgrade", NULL };

  return g_strv_contains (risks, name);
}

static gboolean
parse_action (MiRule *rule, const char *text)
{
  g_auto (GStrv) words = g_strsplit (text, " ", 2);
  const char *argument;
  guint64 number;

  if (words[0] == NULL)
    return FALSE;
  argument = words[1] != NULL ? g_strstrip (words[1]) : "";
  if (g_str_equal (words[0], "refuse") || g_str_equal (words[0], "note"))
    {
      rule->action = words[0][0] == 'r' ? MI_RULE_REFUSE : MI_RULE_NOTE;
      return argument[0] == '\0';
    }
  rule->argument = g_strdup (argument);
  if (g_str_equal (words[0], "via"))
    {
      rule->action = MI_RULE_VIA;
      return argument[0] != '\0';
    }
  if (g_str_equal (words[0], "risk"))
    {
      rule->action = MI_RULE_RISK;
      return is_risk (argument);
    }
  rule->action = MI_RULE_MIN_BATTERY;
  if (!g_str_equal (words[0], "min-battery") || !mi_data_parse_number (argument, 10000, &number))
    return FALSE;
  rule->number = (guint) number;
  return TRUE;
}

/* Returns: what is wrong, NULL if nothing */
static const char *
read_entry (Entry *entry, GKeyFile *file, const char *group)
{
  g_autofree char *action = g_key_file_get_string (file, group, "Action", NULL);

  entry->rule.name = g_strdup (group + strlen (RULE_GROUP));
  entry->models = mi_data_get_list (file, group, "Model");
  entry->hardware = mi_data_get_list (file, group, "Hardware");
  entry->from = g_key_file_get_string (file, group, "From", NULL);
  entry->to = g_key_file_get_string (file, group, "To", NULL);
  entry->size = g_key_file_get_string (file, group, "Size", NULL);
  entry->rule.text = g_key_file_get_string (file, group, "Text", NULL);
  entry->rule.source = g_key_file_get_string (file, group, "Source", NULL);
  if (action == NULL || !parse_action (&entry->rule, g_strstrip (action)))
    return "Action";
  if (match_range (entry->from, MI_IMAGE_UNKNOWN, NULL) == TERM_BAD)
    return "From";
  if (match_range (entry->to, MI_IMAGE_UNKNOWN, NULL) == TERM_BAD)
    return "To";
  if (match_size (entry->size, 0) == TERM_BAD)
    return "Size";
  return entry->rule.text == NULL ? "Text" : NULL;
}

static const char *
find_unknown_key (char **keys)
{
  static const char *const known[]
      = { "Model", "Hardware", "From", "To", "Size", "Action", "Text", "Source", NULL };
  guint i;

  for (i = 0; keys[i] != NULL; i++)
    {
      if (!g_strv_contains (known, keys[i]))
        return keys[i];
    }
  return NULL;
}

void
mi_rules_add_key_file (MiRules *self, GKeyFile *file, const char *origin, GPtrArray *problems)
{
  g_auto (GStrv) groups = g_key_file_get_groups (file, NULL);
  guint i;

  for (i = 0; groups[i] != NULL; i++)
    {
      g_auto (GStrv) keys = g_key_file_get_keys (file, groups[i], NULL, NULL);
      g_autoptr (Entry) entry = NULL;
      const char *bad;

      if (!g_str_has_prefix (groups[i], RULE_GROUP))
        {
          mi_data_problem (problems, "%s: [%s] is no rule, skipped", origin, groups[i]);
          continue;
        }
      entry = g_new0 (Entry, 1);
      bad = read_entry (entry, file, groups[i]);
      /* A condition that we do not know could be the one that keeps the rule from holding. */
      if (bad == NULL)
        bad = find_unknown_key (keys);
      if (bad != NULL)
        mi_data_problem (problems, "%s: [%s]: %s cannot be read, rule skipped", origin, groups[i],
                         bad);
      else
        g_ptr_array_add (self->entries, g_steal_pointer (&entry));
    }
}

MiRules *
mi_rules_new (void)
{
  MiRules *self = g_new0 (MiRules, 1);

  self->entries = g_ptr_array_new_with_free_func (entry_free);
  return self;
}

static void
on_file (gpointer target, GKeyFile *file, const char *origin, GPtrArray *problems)
{
  mi_rules_add_key_file (target, file, origin, problems);
}

MiRules *
mi_rules_load (const char *data_dir, const char *conf_dir, GPtrArray **problems)
{
  MiRules *self = mi_rules_new ();
  g_autoptr (GPtrArray) list = g_ptr_array_new_with_free_func (g_free);

  mi_data_load (data_dir, conf_dir, "rules.d", on_file, self, list);
  if (problems != NULL)
    *problems = g_steal_pointer (&list);
  return self;
}

void
mi_rules_free (MiRules *self)
{
  if (self == NULL)
    return;
  g_ptr_array_unref (self->entries);
  g_free (self);
}

/* Matching. */

static MiImageKind
kind_of_version (const char *version)
{
  if (version == NULL)
    return MI_IMAGE_UNKNOWN;
  return mi_version_is_custom (version) ? MI_IMAGE_CUSTOM_PVVX : MI_IMAGE_STOCK;
}

static gboolean
holds (const Entry *entry, const MiRuleQuery *query)
{
  MiImageKind from_kind
      = query->from_kind != MI_IMAGE_UNKNOWN ? query->from_kind : kind_of_version (query->from);

  return match_list (entry->models, query->model) && match_list (entry->hardware, query->hardware)
         && match_range (entry->from, from_kind, query->from) == TERM_TRUE
         && match_range (entry->to, query->to_kind, query->to) == TERM_TRUE
         && match_size (entry->size, query->size) == TERM_TRUE;
}

/* Different risks are different kinds of action: none may hide another. */
static gboolean
is_same_action (const MiRule *a, const MiRule *b)
{
  return a->action == b->action
         && (a->action != MI_RULE_RISK || g_strcmp0 (a->argument, b->argument) == 0);
}

GPtrArray *
mi_rules_match (MiRules *self, const MiRuleQuery *query)
{
  GPtrArray *found = g_ptr_array_new ();
  guint i, k;

  for (i = 0; i < self->entries->len; i++)
    {
      Entry *entry = g_ptr_array_index (self->entries, i);

      if (!holds (entry, query))
        continue;
      for (k = 0; k < found->len; k++)
        {
          if (is_same_action (g_ptr_array_index (found, k), &entry->rule))
            break;
        }
      if (k == found->len)
        g_ptr_array_add (found, &entry->rule);
    }
  return found;
}
