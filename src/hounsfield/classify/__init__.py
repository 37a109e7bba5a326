"""A classifier for keeps: trained once, calibrated, used on new scans."""
