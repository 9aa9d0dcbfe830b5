//! How a Service can be dialled from outside of the cluster, and by whom.

use super::{Cidr, Why, address};
use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service, ServiceSpec};
use std::net::IpAddr;

/// Addresses outside, of both families.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outside {
    /// Those that the Service claims to have (`spec.externalIPs`).
    pub external_ips: Box<[IpAddr]>,
    /// Those of its load balancer whose packets arrive as they were sent (`ipMode` is VIP).
    pub load_balancer_ips: Box<[IpAddr]>,
    /// Who may dial the latter, by first addresses; everybody, if there is no range of a family.
    pub source_ranges: Box<[Cidr]>,
}

/// Reads them.
pub(super) fn outside(
    service: &Service,
    spec: &ServiceSpec,
    skip: &mut impl FnMut(String, Why),
) -> Outside {
    Outside {
        external_ips: external_ips(spec, skip),
        load_balancer_ips: load_balancer_ips(service, skip),
        source_ranges: source_ranges(spec, skip),
    }
}

fn external_ips(spec: &ServiceSpec, skip: &mut impl FnMut(String, Why)) -> Box<[IpAddr]> {
    let texts = spec.external_ips.iter().flatten().enumerate();
    let mut read = |(index, text): (usize, &String)| {
        let address = address::parse_unreserved(text);
        address
            .map_err(|why| skip(format!("spec.externalIPs[{index}]"), why))
            .ok()
    };
    texts.filter_map(&mut read).collect()
}

fn load_balancer_ips(service: &Service, skip: &mut impl FnMut(String, Why)) -> Box<[IpAddr]> {
    let status = service.status.as_ref();
    let balancer = status.and_then(|status| status.load_balancer.as_ref());
    let points = balancer.and_then(|it| it.ingress.as_ref()).into_iter();
    let mut read = |(index, point): (usize, &LoadBalancerIngress)| {
        load_balancer_ip(point).unwrap_or_else(|(field, why)| {
            skip(format!("status.loadBalancer.ingress[{index}].{field}"), why);
            None
        })
    };
    points.flatten().enumerate().filter_map(&mut read).collect()
}

/// `None`: packets to it have to get to the load balancer.
fn load_balancer_ip(point: &LoadBalancerIngress) -> Result<Option<IpAddr>, (&'static str, Why)> {
    let Some(text) = point.ip.as_deref().filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    match point.ip_mode.as_deref() {
        None | Some("VIP") => {}
        Some("Proxy") => return Ok(None),
        Some(other) => {
            return Err((
                "ipMode",
                Why::UnknownValue {
                    value: other.to_owned(),
                    known: "VIP, Proxy",
                },
            ));
        }
    }
    let address = address::parse_balancer(text).map_err(|why| ("ip", why))?;
    Ok(Some(address))
}

/// Empty texts are no mistake: it is how some tools write "none".
fn source_ranges(spec: &ServiceSpec, skip: &mut impl FnMut(String, Why)) -> Box<[Cidr]> {
    let texts = spec.load_balancer_source_ranges.iter().flatten();
    let mut read = |(index, text): (usize, &String)| {
        let range = text.parse().map(|range: Cidr| range.canonical());
        if range.is_err() && !text.trim().is_empty() {
            let why = Why::NotACidr(text.clone());
            skip(format!("spec.loadBalancerSourceRanges[{index}]"), why);
        }
        range.ok()
    };
    texts.enumerate().filter_map(&mut read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Object, manifests};

    fn read(spec: &str, ingress: &str) -> (Outside, Vec<String>) {
        let text = format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: web}}, spec: {{{spec}}},
              status: {{loadBalancer: {{ingress: [{ingress}]}}}}}}"
        );
        let Object::Service(service) = manifests::objects(&text).unwrap().remove(0) else {
            unreachable!();
        };
        let mut skipped = Vec::new();
        let mut skip = |field: String, why: Why| skipped.push(format!("{field}: {why}"));
        let outside = outside(&service, service.spec.as_ref().unwrap(), &mut skip);
        (outside, skipped)
    }

    fn texts<T: ToString>(all: &[T]) -> Vec<String> {
        all.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_has_nothing_outside_takes_no_memory() {
        assert_eq!(read("", ""), (Outside::default(), vec![]));
    }

    #[test]
    fn addresses_of_load_balancers_count_unless_packets_must_get_there() {
        let (outside, skipped) = read(
            "",
            "{ip: 192.0.2.1}, {ip: ' 192.000.002.2', ipMode: VIP}, {ip: 192.0.2.3, ipMode: Proxy},
             {hostname: lb.example}, {ip: 169.254.1.1}, {ip: 127.0.0.1}, {ip: 192.0.2.4, ipMode: vip},
             {ip: '2001:db8::1'}, {ip: lb}",
        );
        let wanted = ["192.0.2.1", "192.0.2.2", "169.254.1.1", "2001:db8::1"];
        assert_eq!(texts(&outside.load_balancer_ips), wanted);
        assert_eq!(
            skipped,
            [
                "status.loadBalancer.ingress[5].ip: \
                 127.0.0.1 is reserved and can't be a service's or an endpoint's address",
                "status.loadBalancer.ingress[6].ipMode: \"vip\" is not one of: VIP, Proxy",
                "status.loadBalancer.ingress[8].ip: not an IP address: \"lb\"",
            ]
        );
    }

    #[test]
    fn external_addresses_are_those_that_packets_can_have() {
        let (outside, skipped) = read(
            "externalIPs: [192.0.2.1, ' 2001:db8::1 ', 169.254.1.1, 0.0.0.0, web]",
            "",
        );
        assert_eq!(texts(&outside.external_ips), ["192.0.2.1", "2001:db8::1"]);
        let fields: Vec<_> = skipped
            .iter()
            .map(|it| it.split_once(':').unwrap().0)
            .collect();
        let wanted = [2, 3, 4].map(|index| format!("spec.externalIPs[{index}]"));
        assert_eq!(fields, wanted);
    }

    #[test]
    fn source_ranges_are_read_generously_and_written_the_same_way() {
        let (outside, skipped) = read(
            "loadBalancerSourceRanges: [' 10.1.2.3/28', 010.001.000.000/16, '', ' ', 10.0.0.1, 10.0.0.0/33, '::/0']",
            "",
        );
        assert_eq!(
            texts(&outside.source_ranges),
            ["10.1.2.0/28", "10.1.0.0/16", "::/0"]
        );
        assert_eq!(
            skipped,
            [
                "spec.loadBalancerSourceRanges[4]: not an address range: \"10.0.0.1\"",
                "spec.loadBalancerSourceRanges[5]: not an address range: \"10.0.0.0/33\"",
            ]
        );
    }
}
