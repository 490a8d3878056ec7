/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "sim-fault.h"

#include "mi-error.h"

#include <string.h>

#define DELAY_MAX_MS 600000
#define TYPE_MAX     0x0f

static const struct
{
  const char *name;
  SimFaultKind kind;
  gboolean has_value;
} kinds[] = {
  { "drop", SIM_FAULT_DROP, FALSE },       { "double", SIM_FAULT_DOUBLE, FALSE },
  { "corrupt", SIM_FAULT_CORRUPT, FALSE }, { "delay", SIM_FAULT_DELAY, TRUE },
  { "cut", SIM_FAULT_CUT, FALSE },         { "busy", SIM_FAULT_BUSY, FALSE },
  { "timeout", SIM_FAULT_TIMEOUT, FALSE }, { "cancel", SIM_FAULT_CANCEL, FALSE },
  { "reboot", SIM_FAULT_REBOOT, FALSE },   { "status", SIM_FAULT_STATUS, TRUE },
};

void
sim_faults_init (SimFaults *self)
{
  self->items = g_array_new (FALSE, FALSE, sizeof (SimFault));
}

void
sim_faults_clear (SimFaults *self)
{
  g_clear_pointer (&self->items, g_array_unref);
}

static gboolean
is_about_message (SimFaultKind kind)
{
  return kind == SIM_FAULT_BUSY || kind == SIM_FAULT_TIMEOUT || kind == SIM_FAULT_CANCEL;
}

static gboolean
parse_number (const char *text, guint base, guint64 max, guint *out)
{
  guint64 value;

  if (!g_ascii_string_to_unsigned (text, base, 0, max, &value, NULL))
    return FALSE;
  *out = (guint) value;
  return TRUE;
}

/* Types are written as in protocol/framing.md: hex, so "0b"; "11" can only be decimal. */
static gboolean
parse_type (const char *text, guint *out)
{
  if (g_str_has_prefix (text, "0x"))
    text += 2;
  return parse_number (text, 16, TYPE_MAX, out) || parse_number (text, 10, TYPE_MAX, out);
}

/* "5" or "5:200"; a code may be hex with 0x. */
static gboolean
parse_position (const char *text, gboolean has_value, SimFault *out)
{
  g_auto (GStrv) parts = g_strsplit (text, ":", -1);
  guint n = g_strv_length (parts);

  if (n != (has_value ? 2u : 1u))
    return FALSE;
  if (is_about_message (out->kind))
    return parse_type (parts[0], &out->position);
  if (!parse_number (parts[0], 10, G_MAXINT32, &out->position) || out->position == 0)
    return FALSE;
  if (out->kind == SIM_FAULT_DELAY)
    return parse_number (parts[1], 10, DELAY_MAX_MS, &out->value);
  if (out->kind == SIM_FAULT_STATUS)
    return g_str_has_prefix (parts[1], "0x") ? parse_number (parts[1] + 2, 16, 0xff, &out->value)
                                             : parse_number (parts[1], 10, 0xff, &out->value);
  return TRUE;
}

static gboolean
parse_kind (const char *name, gsize len, SimFault *out, gboolean *has_value)
{
  for (gsize i = 0; i < G_N_ELEMENTS (kinds); i++)
    if (strlen (kinds[i].name) == len && strncmp (kinds[i].name, name, len) == 0)
      {
        out->kind = kinds[i].kind;
        *has_value = kinds[i].has_value;
        return TRUE;
      }
  return FALSE;
}

gboolean
sim_fault_parse (const char *spec, SimFault *out, GError **error)
{
  const char *name = spec;
  const char *at = strchr (spec, '@');
  gboolean has_value = FALSE;

  *out = (SimFault){ 0 };
  if (*name == '>' || *name == '<')
    out->direction = *name++ == '>' ? SIM_DIRECTION_IN : SIM_DIRECTION_OUT;
  if (at == NULL || !parse_kind (name, (gsize) (at - name), out, &has_value)
      || !parse_position (at + 1, has_value, out))
    {
      g_set_error (error, MI_ERROR, MI_ERROR_INVALID_ARGUMENT, "not a fault: \"%s\"", spec);
      return FALSE;
    }
  return TRUE;
}

gboolean
sim_faults_arm (SimFaults *self, const char *spec, GError **error)
{
  SimFault fault;

  if (!sim_fault_parse (spec, &fault, error))
    return FALSE;
  g_array_append_val (self->items, fault);
  return TRUE;
}

static void
take (SimFaults *self, guint index, SimFault *out)
{
  *out = g_array_index (self->items, SimFault, index);
  g_array_remove_index (self->items, index);
}

gboolean
sim_faults_take_packet (SimFaults *self, SimDirection direction, guint number, guint total,
                        SimFault *out)
{
  for (guint i = 0; i < self->items->len; i++)
    {
      const SimFault *fault = &g_array_index (self->items, SimFault, i);
      guint n = fault->direction == SIM_DIRECTION_ANY ? total : number;

      if (is_about_message (fault->kind) || fault->kind == SIM_FAULT_STATUS)
        continue;
      if (fault->direction != SIM_DIRECTION_ANY && fault->direction != direction)
        continue;
      if (fault->position != n)
        continue;
      take (self, i, out);
      return TRUE;
    }
  return FALSE;
}

gboolean
sim_faults_take_message (SimFaults *self, guint8 type, SimFault *out)
{
  for (guint i = 0; i < self->items->len; i++)
    {
      const SimFault *fault = &g_array_index (self->items, SimFault, i);

      if (!is_about_message (fault->kind) || fault->position != type)
        continue;
      take (self, i, out);
      return TRUE;
    }
  return FALSE;
}

gboolean
sim_faults_take_status (SimFaults *self, guint number, SimFault *out)
{
  for (guint i = 0; i < self->items->len; i++)
    {
      const SimFault *fault = &g_array_index (self->items, SimFault, i);

      if (fault->kind != SIM_FAULT_STATUS || fault->position != number)
        continue;
      take (self, i, out);
      return TRUE;
    }
  return FALSE;
}
