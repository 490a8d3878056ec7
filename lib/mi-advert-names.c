/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "mi-advert.h"

/* Names of protocol/advertising.md sections 2, 3.8 and 9, which users and vectors see. */

static const char *const kinds[MI_N_READINGS] = {
  [MI_READING_TEMPERATURE] = "temperature_c",
  [MI_READING_HUMIDITY] = "humidity_pct",
  [MI_READING_BATTERY] = "battery_pct",
  [MI_READING_VOLTAGE] = "voltage_mv",
  [MI_READING_BATTERY_LOW] = "battery_low",
  [MI_READING_OPENING] = "opening",
  [MI_READING_COUNT] = "count",
  [MI_READING_POWER_ON] = "power_on",
  [MI_READING_POWER] = "power_w",
  [MI_READING_ILLUMINANCE] = "illuminance_lux",
  [MI_READING_PRESSURE] = "pressure_hpa",
  [MI_READING_MOISTURE] = "moisture_pct",
  [MI_READING_CONDUCTIVITY] = "conductivity_us_cm",
  [MI_READING_DEWPOINT] = "dewpoint_c",
  [MI_READING_CO2] = "co2_ppm",
  [MI_READING_PM25] = "pm25_ug_m3",
  [MI_READING_PM10] = "pm10_ug_m3",
  [MI_READING_TVOC] = "tvoc_ug_m3",
  [MI_READING_FORMALDEHYDE] = "formaldehyde_mg_m3",
  [MI_READING_MASS_KG] = "mass_kg",
  [MI_READING_MASS_LB] = "mass_lb",
  [MI_READING_ENERGY] = "energy_kwh",
  [MI_READING_GENERIC] = "generic",
  [MI_READING_BATTERY_CHARGING] = "battery_charging",
  [MI_READING_LIGHT] = "light",
  [MI_READING_MOTION] = "motion",
  [MI_READING_WINDOW] = "window",
  [MI_READING_BUTTON] = "button",
  [MI_READING_PACKET_ID] = "packet_id",
  [MI_READING_TIMESTAMP] = "timestamp",
  [MI_READING_DEVICE_TYPE_ID] = "device_type_id",
  [MI_READING_FIRMWARE_VERSION] = "firmware_version",
};

static const char *const errors[MI_ADVERT_N_ERRORS] = {
  [MI_ADVERT_ERROR_NONE] = "none",
  [MI_ADVERT_ERROR_TRUNCATED] = "truncated",
  [MI_ADVERT_ERROR_UNSUPPORTED_FORMAT] = "unsupported_format",
  [MI_ADVERT_ERROR_UNSUPPORTED_VERSION] = "unsupported_version",
  [MI_ADVERT_ERROR_MESH] = "mesh",
  [MI_ADVERT_ERROR_MAC_MISMATCH] = "mac_mismatch",
  [MI_ADVERT_ERROR_NO_KEY] = "no_key",
  [MI_ADVERT_ERROR_BAD_KEY] = "bad_key",
  [MI_ADVERT_ERROR_AUTH_FAILED] = "auth_failed",
  [MI_ADVERT_ERROR_DOWNGRADE] = "downgrade",
  [MI_ADVERT_ERROR_MALFORMED] = "malformed",
};

static const char *const statuses[] = {
  [MI_ADVERT_STATUS_OK] = "ok",
  [MI_ADVERT_STATUS_EMPTY] = "empty",
  [MI_ADVERT_STATUS_ERROR] = "error",
};

static const char *const formats[] = {
  [MI_ADVERT_FORMAT_NONE] = "none",
  [MI_ADVERT_FORMAT_MIBEACON] = "mibeacon",
  [MI_ADVERT_FORMAT_ATC1441] = "atc1441",
  [MI_ADVERT_FORMAT_ATC1441_ENCRYPTED] = "atc1441-encrypted",
  [MI_ADVERT_FORMAT_PVVX] = "pvvx",
  [MI_ADVERT_FORMAT_PVVX_ENCRYPTED] = "pvvx-encrypted",
  [MI_ADVERT_FORMAT_BTHOME1] = "bthome1",
  [MI_ADVERT_FORMAT_BTHOME1_ENCRYPTED] = "bthome1-encrypted",
  [MI_ADVERT_FORMAT_BTHOME2] = "bthome2",
  [MI_ADVERT_FORMAT_QINGPING] = "qingping",
};

static const char *const bind_states[] = {
  [MI_BIND_STATE_UNKNOWN] = "unknown",       [MI_BIND_STATE_BOUND] = "bound",
  [MI_BIND_STATE_SOLICITING] = "soliciting", [MI_BIND_STATE_UNBOUND] = "unbound",
  [MI_BIND_STATE_PUBLIC] = "public",
};

static const char *const reasons[MI_N_REJECTS] = {
  [MI_REJECT_TOO_LOW] = "too-low",
  [MI_REJECT_TOO_HIGH] = "too-high",
  [MI_REJECT_NOT_FINITE] = "not-finite",
};

static const char *const verdicts[] = {
  [MI_ADVERT_VERDICT_ACCEPT] = "accept",   [MI_ADVERT_VERDICT_DUPLICATE] = "duplicate",
  [MI_ADVERT_VERDICT_STALE] = "stale",     [MI_ADVERT_VERDICT_REPLAY] = "replay",
  [MI_ADVERT_VERDICT_IGNORED] = "ignored", [MI_ADVERT_VERDICT_ERROR] = "error",
};

#define NAME_OF(table, value)                                                                      \
  ((guint) (value) < G_N_ELEMENTS (table) ? (table)[(guint) (value)] : "unknown")

const char *
mi_reading_kind_get_name (MiReadingKind kind)
{
  return NAME_OF (kinds, kind);
}

gboolean
mi_reading_kind_is_boolean (MiReadingKind kind)
{
  switch (kind)
    {
    case MI_READING_BATTERY_LOW:
    case MI_READING_OPENING:
    case MI_READING_POWER_ON:
    case MI_READING_GENERIC:
    case MI_READING_BATTERY_CHARGING:
    case MI_READING_LIGHT:
    case MI_READING_MOTION:
    case MI_READING_WINDOW:
      return TRUE;
    default:
      return FALSE;
    }
}

const char *
mi_advert_error_get_name (MiAdvertError error)
{
  return NAME_OF (errors, error);
}

const char *
mi_advert_status_get_name (MiAdvertStatus status)
{
  return NAME_OF (statuses, status);
}

const char *
mi_advert_format_get_name (MiAdvertFormat format)
{
  return NAME_OF (formats, format);
}

const char *
mi_bind_state_get_name (MiBindState state)
{
  return NAME_OF (bind_states, state);
}

const char *
mi_reject_reason_get_name (MiRejectReason reason)
{
  return NAME_OF (reasons, reason);
}

const char *
mi_advert_verdict_get_name (MiAdvertVerdict verdict)
{
  return NAME_OF (verdicts, verdict);
}
